"""Runs the compile-time part of a program. The nodes that it emits on the way are the graph.

A mistake in a model raises nothing here: it is recorded once, at the innermost line in the user's own files, and the
expression's value becomes POISON, which all later steps pass on silently. So all mistakes of a file are found in one
run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from compiler.diagnostics import Diagnostics, Note, Span
from compiler.elaborate.context import Context, TooLarge, Variables
from compiler.elaborate.frames import CONTINUE, Frame, MetricTotal, ShapeStep
from compiler.elaborate.values import POISON, Closure, Namespace, Poison, poisoned, tensors_in
from compiler.ir.graph import Origin, Scalar, Value
from compiler.ir.types import Dim, TypeRuleError
from compiler.language import syntax

MOST_STEPS = 3_000_000
STEPS_FOR_AN_OPERATION = 24  # compile-time steps credited for each node: only steps that emit none are limited
DEEPEST_NESTING = 2_000  # expressions and statements inside each other, calls included
LONGEST_HISTORY = 6

# How each type of node in the syntax tree runs: expressions.py and statements.py fill these tables.
EXPRESSIONS: dict[type, Callable[[Evaluator, Any, Frame], Any]] = {}
STATEMENTS: dict[type, Callable[[Evaluator, Any, Frame], Any]] = {}


class GaveUp(Exception):
    """The program is too large to elaborate; that has been reported."""


class Evaluator:
    """Elaborates into one context at a time; variables and diagnostics are shared by all graphs of a model."""

    def __init__(
        self, diagnostics: Diagnostics, namespace: Namespace, variables: Variables, context: Context, training: bool
    ):
        self.diagnostics = diagnostics
        self.namespace = namespace  # of the program: counts the steps of all its models and graphs
        self.variables = variables
        self.context = context
        self.training = training
        self.updates: dict[str, Value] = {}  # new values of states, by name
        self.history: dict[Value, ShapeStep] = {}
        self.pairs: dict[Value, tuple[list[Value], Span, Frame]] = {}  # this and the next two: see cautions.py
        self.activated: dict[Value, tuple[str, Span]] = {}
        self.applied: dict[tuple[Closure, Frame], Span | None] = {}
        self.totals: list[MetricTotal] = []  # of the metrics that have run so far
        self.nesting = 0

    # Running ---------------------------------------------------------------------------------------------------------

    def evaluate(self, node: syntax.Expression, frame: Frame) -> Any:
        """The value of an expression."""
        self.namespace.steps += 1
        if self.namespace.steps > MOST_STEPS or self.nesting > DEEPEST_NESTING:
            self.tick(node.span, frame, cost=0)  # gives up
        self.nesting += 1
        try:
            return EXPRESSIONS[type(node)](self, node, frame)
        finally:
            self.nesting -= 1

    def run(self, statements: Sequence[syntax.Statement], frame: Frame) -> Any:
        """Executes statements; the returned value, or CONTINUE."""
        self.nesting += 1
        try:
            for statement in statements:
                self.tick(statement.span, frame)
                result = STATEMENTS[type(statement)](self, statement, frame)
                if result is not CONTINUE:
                    return result
            return CONTINUE
        finally:
            self.nesting -= 1

    def tick(self, span: Span, frame: Frame, cost: int = 1) -> None:
        """Counts a step; gives up on a program that takes too many or nests too deeply."""
        self.namespace.steps += cost
        if self.namespace.steps > MOST_STEPS:
            self.give_up(span, frame, "the program takes too long to expand", f"at most {MOST_STEPS} steps")
        if self.nesting > DEEPEST_NESTING:
            self.give_up(span, frame, "calls and expressions nest too deeply", f"at most {DEEPEST_NESTING} levels")

    def weigh(self, result: Any, span: Span, frame: Frame) -> None:
        """Counts a long list as several steps."""
        if isinstance(result, list):
            self.tick(span, frame, cost=len(result) // 16)

    def give_up(self, span: Span, frame: Frame, message: str, expected: str | None) -> NoReturn:
        self.fail(span, frame, message, expected)
        raise GaveUp

    @contextmanager
    def within(self, context: Context) -> Iterator[None]:
        """Meanwhile, nodes are emitted to another graph."""
        previous, self.context = self.context, context
        try:
            yield
        finally:
            self.context = previous

    # Reporting -------------------------------------------------------------------------------------------------------

    def site(self, span: Span, frame: Frame) -> tuple[Span, Frame]:
        """The innermost position in the user's own files."""
        while frame.namespace.is_library and frame.caller and frame.span:
            span, frame = frame.span, frame.caller
        return span, frame

    def origin(self, span: Span, frame: Frame) -> Origin:
        user_span, _ = self.site(span, frame)
        return Origin(user_span.file, user_span.line, user_span.column, frame.path)

    def fail(
        self,
        span: Span,
        frame: Frame,
        message: str,
        expected: str | None = None,
        found: str | None = None,
        tensors: Iterable[Any] = (),
    ) -> Poison:
        """Records a mistake, with the history of the tensors involved, and returns POISON."""
        user_span, _ = self.site(span, frame)
        notes = [*self.shape_history(tensors), *self.surroundings(span, frame)]
        self.diagnostics.error(user_span, message, expected=expected, found=found, notes=notes)
        return POISON

    def warn(
        self, span: Span, frame: Frame, message: str, expected: str | None, found: str | None, notes: Iterable[Note]
    ) -> None:
        """Records a warning at the innermost position in the user's own files."""
        user_span, _ = self.site(span, frame)
        notes = [*notes, *self.surroundings(span, frame)]
        self.diagnostics.warn(user_span, message, expected=expected, found=found, notes=notes)

    def surroundings(self, span: Span, frame: Frame) -> list[Note]:
        """The declaration that a position is in: of the library, or with the place where it is used."""
        _, user_frame = self.site(span, frame)
        if user_frame is not frame:
            return [Note(f"inside {frame.name}", span)]
        if frame.name and frame.caller and frame.span:
            caller_span, _ = self.site(frame.span, frame.caller)
            return [Note(f"in {frame.name}, used here", caller_span)]
        return []

    def refuse(self, refusal: TypeRuleError, span: Span, frame: Frame, tensors: Iterable[Any] = ()) -> Poison:
        """Records the error that an op or a builtin has raised."""
        if isinstance(refusal, TooLarge):
            self.give_up(span, frame, refusal.message, refusal.expected)
        return self.fail(span, frame, refusal.message, refusal.expected, refusal.found, tensors)

    def guarded(self, span: Span, frame: Frame, function: Any, *arguments: Any) -> Any:
        """Calls a function that may raise TypeRuleError with a Site; poison is passed on, and errors are reported."""
        if poisoned(*arguments):
            return POISON
        try:
            result = function(Site(self, span, frame), *arguments)
        except TypeRuleError as refusal:
            return self.refuse(refusal, span, frame, arguments)
        self.weigh(result, span, frame)
        return result

    # The history of shapes -------------------------------------------------------------------------------------------

    def remember(self, name: str, result: Any, source: Any, span: Span, frame: Frame) -> None:
        """Records which call returned the tensors. Calls that keep the shape are left out of its history."""
        tensors = tensors_in(result)
        (source,) = (tensors and tensors_in(source)[:1]) or (None,)
        for tensor in tensors:
            if source is not None and tensor.type.shape == source.type.shape:
                if source in self.history:
                    self.history.setdefault(tensor, self.history[source])
            elif not frame.namespace.is_library:
                self.history[tensor] = ShapeStep(name, span, source)

    def shape_history(self, values: Iterable[Any]) -> list[Note]:
        """Where the shapes of the tensors among some values come from, latest first."""
        notes: list[Note] = []
        for tensor in [tensor for value in values for tensor in tensors_in(value)]:
            while tensor in self.history and len(notes) < LONGEST_HISTORY:
                step = self.history[tensor]
                notes.append(Note(f"{tensor.type} from {step.name}", step.span))
                tensor = step.source
        return list(dict.fromkeys(notes))

    def shape_origin(self, tensor: Value) -> list[Note]:
        """The latest step in the history of a shape; operations that keep the shape are skipped."""
        at: Value | None = tensor
        while at is not None and at not in self.history:
            operands = at.node.operands if at.node else []
            at = next((each for each in operands if each.type.shape == tensor.type.shape), None)
        return self.shape_history([at])[:1]


@dataclass(slots=True)
class Site:
    """The expression being elaborated; operators and builtins emit their nodes through it."""

    evaluator: Evaluator
    span: Span
    frame: Frame

    def emit(self, name: str, *operands: Value | Scalar, **attributes: Any) -> Any:
        """Adds a node; raises TypeRuleError when the op refuses the operands."""
        self.evaluator.namespace.steps -= STEPS_FOR_AN_OPERATION
        return self.context.emit(name, operands, attributes, self.evaluator.origin(self.span, self.frame))

    def cast(self, value: Value, dtype: str) -> Value:
        return value if value.type.dtype == dtype else self.emit("cast", value, dtype=dtype)

    @property
    def context(self) -> Context:
        return self.evaluator.context

    def scalar(self, dim: Dim, dtype: str = "f32") -> Value:
        """A dimension, such as the batch, as a scalar: f64 where that is asked for, else f32."""
        value = self.context.scalar(dim, self.evaluator.origin(self.span, self.frame))
        return self.cast(value, dtype) if dtype == "f64" else value
