"""Runs the compile-time part of a program: expressions, statements and calls. What it emits on the way is the graph.

Nothing here raises for a mistake in a model: the mistake is recorded once, at the innermost line of the user's own
files, and the expression's value becomes POISON, which every later step lets pass in silence. So all mistakes of a file
are found in one run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from compiler.diagnostics import Diagnostics, Note, Span, did_you_mean
from compiler.elaborate.arithmetic import binary, unary
from compiler.elaborate.builtins import call_builtin, index_tensor
from compiler.elaborate.context import Context, Site, Variable, Variables
from compiler.elaborate.namespaces import Namespace
from compiler.elaborate.signatures import Given, Problem, as_shape, bind, unify
from compiler.elaborate.values import (
    POISON,
    Builtin,
    Call,
    Closure,
    Poison,
    describe,
    describe_type,
    is_function,
    is_number,
    is_tensor,
    poisoned,
    snake_case,
)
from compiler.ir.builder import literal
from compiler.ir.graph import Origin, Value
from compiler.ir.types import TensorType, TypeRuleError
from compiler.language import syntax
from compiler.language.formatter import format_type

CONTINUE = object()  # a statement that did not return
DEEPEST_CALL = 60
MOST_STEPS = 2_000_000
LONGEST_HISTORY = 6


@dataclass(eq=False)
class Frame:
    """One running declaration: its names, its place among the layers, and who called it."""

    namespace: Namespace
    name: str
    kind: str
    variables: dict[str, Any] = field(default_factory=dict)
    path: str = ""
    counters: dict[str, int] = field(default_factory=dict)
    persistent: dict[str, Variable] = field(default_factory=dict)  # params, states and slots by local name
    carries: dict[str, Value] = field(default_factory=dict)
    call: Call | None = None
    span: Span | None = None
    caller: Frame | None = None
    damaged: bool = False
    depth: int = 0


@dataclass(frozen=True)
class Step:
    """Which call a tensor came out of, and which tensor went in: the history of its shape."""

    name: str
    span: Span
    source: Value | None


class Evaluator:
    """Elaborates into one context at a time; variables and diagnostics are shared by all graphs of a model."""

    def __init__(self, diagnostics: Diagnostics, variables: Variables, context: Context, training: bool):
        self.diagnostics = diagnostics
        self.variables = variables
        self.context = context
        self.training = training
        self.updates: dict[str, Value] = {}
        self.history: dict[Value, Step] = {}
        self.steps = 0

    # Reporting -------------------------------------------------------------------------------------------------------

    def site(self, span: Span, frame: Frame) -> tuple[Span, Frame]:
        """The innermost position in the user's own files."""
        while frame.namespace.is_library and frame.caller and frame.span:
            span, frame = frame.span, frame.caller
        return span, frame

    def fail(
        self,
        span: Span,
        frame: Frame,
        message: str,
        expected: str | None = None,
        found: str | None = None,
        history: Value | None = None,
    ) -> Poison:
        """Records a mistake and returns POISON."""
        user_span, user_frame = self.site(span, frame)
        notes = self.shape_history(history) if history is not None else []
        if user_frame is not frame:
            notes.append(Note(f"inside {frame.name}", span))
        elif frame.name and frame.caller and frame.span:
            caller_span, _ = self.site(frame.span, frame.caller)
            notes.append(Note(f"in {frame.name}, used here", caller_span))
        self.diagnostics.error(user_span, message, expected=expected, found=found, notes=notes)
        return POISON

    def shape_history(self, value: Value) -> list[Note]:
        notes = []
        while value in self.history and len(notes) < LONGEST_HISTORY:
            step = self.history[value]
            notes.append(Note(f"{value.type} from {step.name}", step.span))
            if step.source is None:
                break
            value = step.source
        return notes

    def origin(self, span: Span, frame: Frame) -> Origin:
        user_span, _ = self.site(span, frame)
        return Origin(user_span.file, user_span.line, user_span.column, frame.path)

    def emit(self, span: Span, frame: Frame, name: str, *operands: Any, **attributes: Any) -> Any:
        """Adds a node at a position; raises TypeRuleError when the op refuses the operands."""
        return self.context.emit(name, operands, attributes, self.origin(span, frame))

    @contextmanager
    def within(self, context: Context):
        """Nodes go to another graph for a while."""
        previous, self.context = self.context, context
        try:
            yield
        finally:
            self.context = previous

    # Statements ------------------------------------------------------------------------------------------------------

    def run(self, statements: Sequence[syntax.Statement], frame: Frame) -> Any:
        """Executes statements; the returned value, or CONTINUE."""
        for statement in statements:
            result = STATEMENTS[type(statement)](self, statement, frame)
            if result is not CONTINUE:
                return result
        return CONTINUE

    def run_assign(self, node: syntax.Assign, frame: Frame) -> Any:
        value = self.evaluate(node.value, frame)
        if len(node.targets) == 1:
            self.assign(node.targets[0], value, frame)
            return CONTINUE
        count = len(node.targets)
        if not isinstance(value, list) or len(value) != count:
            found = describe(value)
            if not isinstance(value, Poison):
                self.fail(node.value.span, frame, f"{count} names need {count} values", f"a list of {count}", found)
            value = [POISON] * count
        for target, item in zip(node.targets, value, strict=True):
            self.assign(target, item, frame)
        return CONTINUE

    def assign(self, target: syntax.Name, value: Any, frame: Frame) -> None:
        kept = frame.persistent.get(target.id)
        if kept is None:
            frame.variables[target.id] = value
        elif kept.kind == "param":
            self.fail(
                target.span, frame, f"{target.id} is a param: only the optimizer changes it", "a state, or another name"
            )
        elif is_number(value) or (is_tensor(value) and value.type == kept.type):
            if self.training:
                tensor = self.filled(value, kept.type, target.span, frame)
                self.updates[kept.name] = tensor
                frame.variables[target.id] = tensor
        elif not poisoned(value):
            self.fail(target.span, frame, f"the state {target.id} keeps its type", str(kept.type), describe_type(value))

    def run_return(self, node: syntax.Return, frame: Frame) -> Any:
        values = [self.evaluate(value, frame) for value in node.values]
        return values[0] if len(values) == 1 else values

    def run_if(self, node: syntax.If, frame: Frame) -> Any:
        condition = self.evaluate(node.condition, frame)
        if isinstance(condition, Poison):
            return POISON
        if is_tensor(condition):
            return self.fail(
                node.condition.span,
                frame,
                "if decides at compile time",
                "a compile-time value (use where(…) for tensors)",
                describe(condition),
            )
        return self.run(node.then if condition else node.otherwise, frame)

    def run_for(self, node: syntax.For, frame: Frame) -> Any:
        items = self.evaluate(node.iterable, frame)
        if isinstance(items, Poison):
            return POISON
        if not isinstance(items, list | range):
            return self.fail(
                node.iterable.span,
                frame,
                "for runs over a list at compile time",
                "a list or range(n) (use scan for steps of a tensor)",
                describe(items),
            )
        for item in items:
            frame.variables[node.variable.id] = item
            result = self.run(node.body, frame)
            if result is not CONTINUE:
                return result
        return CONTINUE

    def run_expression(self, node: syntax.ExpressionStatement, frame: Frame) -> Any:
        self.evaluate(node.value, frame)
        return CONTINUE

    def run_declare(self, node: syntax.Declare, frame: Frame) -> Any:
        allowed = {"param": ("layer", "cell", "model"), "state": ("layer", "model", "optimizer"), "carry": ("cell",)}
        name = node.name.id
        frame.variables[name] = POISON
        if frame.kind not in allowed[node.kind]:
            self.fail(
                node.span, frame, f"a {frame.kind} cannot have a {node.kind}", f"{' or '.join(allowed[node.kind])}"
            )
            return CONTINUE
        type = self.declared_type(node, frame)
        if node.kind == "carry":
            frame.variables[name] = self.declare_carry(node, type, frame)
        elif node.kind == "state" and self.context.parent:
            self.fail(node.span, frame, "a layer with a state cannot run inside a cell", "layers without state")
        elif not isinstance(type, Poison):
            kind = "slot" if frame.kind == "optimizer" else node.kind
            frame.variables[name] = self.declare_variable(node, type, kind, frame)
        return CONTINUE

    # Variables -------------------------------------------------------------------------------------------------------

    def declared_type(self, node: syntax.Declare, frame: Frame) -> TensorType | Poison | None:
        """The type written down; None where it follows from the value."""
        if node.type is None:
            if node.kind == "param" or node.value is None:
                return self.fail(
                    node.span,
                    frame,
                    f"the {node.kind} {node.name.id} needs a type",
                    f"{node.kind} {node.name.id}: f32[…] = …",
                )
            return None
        dims = [self.evaluate(dim, frame) for dim in node.type.dims]
        if poisoned(dims):
            return POISON
        shape = as_shape(dims)
        if shape is None or (node.kind == "param" and not all(isinstance(dim, int) for dim in shape)):
            found = format_type(node.type) + " = [" + ", ".join(map(describe, dims)) + "]"
            return self.fail(
                node.type.span, frame, f"not a shape for a {node.kind}", "non-negative whole numbers", found
            )
        try:
            return TensorType(node.type.dtype, shape)
        except TypeRuleError as refusal:
            return self.fail(node.type.span, frame, refusal.message, refusal.expected, refusal.found)

    def declare_variable(self, node: syntax.Declare, type: TensorType | None, kind: str, frame: Frame) -> Any:
        """The graph input that holds a variable; its first value is built when it is met for the first time."""
        name = f"{frame.path}.{node.name.id}" if frame.path else node.name.id
        if node.name.id in frame.persistent:
            return self.fail(node.name.span, frame, f"{node.name.id} is declared twice", "one declaration of each name")
        where, _ = self.site(node.span, frame)
        variable = self.variables.by_name.get(name)
        if variable is not None and (variable.span != where or variable.type != (type or variable.type)):
            message = f"{name} is another variable when the model trains than when it predicts"
            return self.fail(
                node.name.span, frame, message, f"{variable.type}, as in line {variable.span.line}", str(type)
            )
        if variable is None:
            initial = self.initial_value(node, type, frame)
            if isinstance(initial, Poison):
                return POISON
            variable = Variable(name, initial.type, kind, where)
            self.variables.by_name[name] = variable
            self.variables.init.graph.outputs[name] = initial
        frame.persistent[node.name.id] = variable
        if frame.call is not None:
            frame.call.variables.append(name)
        return self.variable_input(variable)

    def variable_input(self, variable: Variable) -> Value:
        root = self.context.root
        known = next((value for value in root.graph.inputs if value.name == variable.name), None)
        return known or root.input(variable.name, variable.type, variable.kind)

    def initial_value(self, node: syntax.Declare, type: TensorType | None, frame: Frame) -> Any:
        """Builds a variable's first value in the init graph: a number, a function of the shape, or an expression."""
        if node.value is None:
            return self.fail(node.span, frame, f"the {node.kind} {node.name.id} needs a first value", "= zeros, say")
        with self.within(self.variables.init):
            value = self.evaluate(node.value, frame)
            if is_function(value) and type is not None:
                value = self.apply_last(value, [Given(list(type.shape), node.value.span)], node.value.span, frame)
            if isinstance(value, Poison):
                return POISON
            if not is_tensor(value) and not is_number(value):
                return self.fail(
                    node.value.span,
                    frame,
                    f"not a first value for {node.name.id}",
                    "a number, a tensor or a function of the shape",
                    describe(value),
                )
            value = self.filled(value, type, node.value.span, frame) if type or is_number(value) else value
            if type is not None and value.type != type:
                return self.fail(
                    node.value.span,
                    frame,
                    f"the first value of {node.name.id} has another type",
                    str(type),
                    describe_type(value),
                )
            return value

    def filled(self, value: Any, type: TensorType | None, span: Span, frame: Frame) -> Value:
        """A number as a tensor of a type; a tensor as it is."""
        if is_tensor(value):
            return value
        type = type or TensorType("f32")
        return self.emit(span, frame, "broadcast", literal(value, type.dtype), shape=type.shape)

    def declare_carry(self, node: syntax.Declare, type: TensorType | Poison | None, frame: Frame) -> Any:
        """A carry of the running scan: its first value belongs to the graph around."""
        if isinstance(type, Poison) or node.value is None or self.context.parent is None:
            return POISON
        body = self.context
        with self.within(self.context.parent):
            value = self.evaluate(node.value, frame)
            if is_number(value) and type is not None:
                value = self.filled(value, type, node.value.span, frame)
        if isinstance(value, Poison):
            return POISON
        if not is_tensor(value) or (type is not None and value.type != type):
            return self.fail(
                node.span, frame, f"the carry {node.name.id} starts with another type", str(type), describe_type(value)
            )
        frame.carries[node.name.id] = value
        return body.input(node.name.id, value.type, "carry")

    # Expressions -----------------------------------------------------------------------------------------------------

    def evaluate(self, node: syntax.Expression, frame: Frame) -> Any:
        self.steps += 1
        if self.steps > MOST_STEPS:
            return self.fail(
                node.span, frame, "the program takes too long to expand", f"at most {MOST_STEPS} compile-time steps"
            )
        return EXPRESSIONS[type(node)](self, node, frame)

    def evaluate_name(self, node: syntax.Name, frame: Frame) -> Any:
        if node.id in frame.variables:
            return frame.variables[node.id]
        if node.id in CONSTANTS:
            return CONSTANTS[node.id]
        if node.id == "training":
            return self.training
        found = frame.namespace.find(node.id)
        if found is not None:
            return found
        if frame.damaged and not node.id[0].isupper():
            return POISON
        candidates = [*frame.variables, *CONSTANTS, "training", *frame.namespace.names()]
        hint = did_you_mean(node.id, candidates)
        what = "layer" if node.id[0].isupper() else "name"
        return self.fail(
            node.span,
            frame,
            f"unknown {what} {node.id}" + (f"; {hint}" if hint else ""),
            f"a {what} declared in the file, its imports or the standard library",
            node.id,
        )

    def evaluate_list(self, node: syntax.ListLiteral, frame: Frame) -> Any:
        return [self.evaluate(item, frame) for item in node.items]

    def evaluate_unary(self, node: syntax.Unary, frame: Frame) -> Any:
        return self.guarded(node.span, frame, unary, node.operator, self.evaluate(node.operand, frame))

    def evaluate_binary(self, node: syntax.Binary, frame: Frame) -> Any:
        left = self.evaluate(node.left, frame)
        if node.operator in ("and", "or") and isinstance(left, bool) and left == (node.operator == "or"):
            return left
        return self.guarded(node.span, frame, binary, node.operator, left, self.evaluate(node.right, frame))

    def evaluate_index(self, node: syntax.Index, frame: Frame) -> Any:
        target = self.evaluate(node.target, frame)
        items = [self.evaluate_slice(item, frame) for item in node.items]
        if poisoned([target, items]):
            return POISON
        return self.guarded(node.span, frame, index_tensor, target, items)

    def evaluate_slice(self, node: syntax.Expression | syntax.Slice, frame: Frame) -> Any:
        if not isinstance(node, syntax.Slice):
            return self.evaluate(node, frame)
        bounds = [bound and self.evaluate(bound, frame) for bound in (node.start, node.stop, node.step)]
        return POISON if poisoned(bounds) else slice(*bounds)

    def guarded(self, span: Span, frame: Frame, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls what may raise TypeRuleError; poison passes through, a refusal is reported here."""
        if poisoned(arguments):
            return POISON
        try:
            return function(Site(self, span, frame), *arguments)
        except TypeRuleError as refusal:
            tensor = next((a for a in arguments if is_tensor(a) and a in self.history), None)
            return self.fail(span, frame, refusal.message, refusal.expected, refusal.found, tensor)

    # Calls -----------------------------------------------------------------------------------------------------------

    def evaluate_call(self, node: syntax.Call, frame: Frame) -> Any:
        function = self.evaluate(node.function, frame)
        given = [Given(self.evaluate(a.value, frame), a.value.span, a.name) for a in node.arguments]
        return self.call(function, given, node.span, frame)

    def evaluate_pipe(self, node: syntax.Pipe, frame: Frame) -> Any:
        # A long pipeline is a deep left spine: walk it in a loop.
        stages = []
        while isinstance(node, syntax.Pipe):
            stages.append(node.function)
            node = node.value  # type: ignore[assignment]
        value = self.evaluate(node, frame)
        for stage in reversed(stages):
            function = self.evaluate(stage, frame)
            value = self.apply_last(function, [Given(value, stage.span)], stage.span, frame, piped=True)
        return value

    def call(self, function: Any, given: Sequence[Given], span: Span, frame: Frame) -> Any:
        """`f(…)`: hyperparameters first where a declaration has both, unless the first argument is a tensor."""
        if isinstance(function, Closure) and len(function.declaration.groups) == 2 and function.hyperparameters is None:
            if not given or not is_tensor(given[0].value):
                return self.with_hyperparameters(function, given, span, frame)
        return self.apply_last(function, given, span, frame)

    def with_hyperparameters(self, closure: Closure, given: Sequence[Given], span: Span, frame: Frame) -> Any:
        bound = bind(closure.name, closure.declaration.groups[0], given, span, "hyperparameter")
        if isinstance(bound, Problem):
            return self.fail(bound.span, frame, bound.message, bound.expected, bound.found)
        values = {name: argument.value for name, argument in bound.items()}
        defaults = Frame(closure.namespace, closure.name, "fn", values, span=span, caller=frame, depth=frame.depth + 1)
        for parameter in closure.declaration.groups[0]:
            if parameter.name.id not in values and parameter.default is not None:
                values[parameter.name.id] = self.evaluate(parameter.default, defaults)
        return POISON if any(map(poisoned, values.values())) else replace(closure, hyperparameters=values)

    def apply_last(self, function: Any, given: Sequence[Given], span: Span, frame: Frame, piped: bool = False) -> Any:
        """Gives the last group its arguments and runs the body; hyperparameters not given take their defaults."""
        if isinstance(function, Builtin):
            return (
                POISON
                if poisoned([g.value for g in given])
                else call_builtin(self, function, given, span, frame, piped)
            )
        if isinstance(function, Poison):
            return POISON
        if not isinstance(function, Closure):
            return self.fail(span, frame, "this cannot be called", "a function or a layer", describe(function))
        if function.kind in ("cell", "optimizer", "model"):
            where = {"cell": "scan(cell, x)", "optimizer": "optimizer = … of a train block", "model": "a train block"}
            message = f"{function.name} is {'an' if function.kind == 'optimizer' else 'a'} {function.kind}"
            return self.fail(span, frame, f"{message}: it runs in {where[function.kind]}", "a layer or a function")
        return self.apply(function, given, span, frame, piped)

    def apply(self, closure: Closure, given: Sequence[Given], span: Span, frame: Frame, piped: bool = False) -> Any:
        inner = self.enter(closure, given, span, frame, piped)
        if isinstance(inner, Poison):
            return POISON
        result = self.run(closure.declaration.body, inner)
        if result is CONTINUE:
            if closure.declaration.damaged:
                return POISON
            return self.fail(closure.declaration.name.span, inner, f"{closure.name} returns nothing", "a return")
        self.leave(inner, result, given, span, frame)
        return result

    def enter(
        self, closure: Closure, given: Sequence[Given], span: Span, frame: Frame, piped: bool = False
    ) -> Frame | Poison:
        """A frame with hyperparameters, tensors and shape variables bound."""
        groups = closure.declaration.groups
        if len(groups) == 2 and closure.hyperparameters is None:
            closure = self.with_hyperparameters(closure, [], span, frame)
            if isinstance(closure, Poison):
                return POISON
        if frame.depth >= DEEPEST_CALL:
            return self.fail(
                span, frame, f"{closure.name} calls itself too deeply", f"at most {DEEPEST_CALL} nested calls"
            )
        takes_tensors = closure.kind != "fn" or any(parameter.type for parameter in groups[-1])
        bound = bind(closure.name, groups[-1], given, span, "tensor" if takes_tensors else "argument")
        if isinstance(bound, Problem):
            return self.fail(bound.span, frame, bound.message, bound.expected, bound.found)
        if any(poisoned(argument.value) for argument in bound.values()):
            return POISON
        inner = Frame(
            closure.namespace,
            closure.name,
            closure.kind,
            dict(closure.hyperparameters or {}),
            frame.path,
            frame.counters,
            span=span,
            caller=frame,
            damaged=closure.declaration.damaged,
            depth=frame.depth + 1,
        )
        if closure.kind in ("layer", "cell"):
            base = snake_case(closure.name)
            frame.counters[base] = number = frame.counters.get(base, 0) + 1
            inner.path = f"{frame.path}.{base}_{number}".lstrip(".")
            inner.counters = {}
        inner.call = Call(closure.name, inner.path, closure.kind, closure.namespace.is_library, piped, span)
        for parameter in groups[-1]:
            value = self.argument(closure, parameter, bound.get(parameter.name.id), inner)
            if isinstance(value, Poison):
                return POISON
            inner.variables[parameter.name.id] = value
        return inner

    def argument(self, closure: Closure, parameter: syntax.Parameter, given: Given | None, inner: Frame) -> Any:
        """The value of one parameter; a tensor is matched with the type in the signature."""
        if given is None:
            assert parameter.default is not None
            return self.evaluate(parameter.default, inner)
        if parameter.type is None:
            return given.value
        assert inner.caller is not None
        value, pattern = given.value, format_type(parameter.type)
        message = f"{closure.name} cannot take this as {parameter.name.id}"
        if is_number(value):
            value = literal(value, parameter.type.dtype)
        if not is_tensor(value):
            return self.fail(given.span, inner.caller, message, f"a tensor {pattern}", describe(value))
        if not unify(parameter.type, value.type, inner.variables, lambda dim: self.evaluate(dim, inner)):
            known = [
                f"{n} = {v}"
                for n, v in inner.variables.items()
                if f"{n}" in shape_names(parameter.type) and v is not None
            ]
            expected = pattern + (f" with {', '.join(known)}" if known else "")
            return self.fail(given.span, inner.caller, message, expected, str(value.type), value)
        return value

    def leave(self, inner: Frame, result: Any, given: Sequence[Given], span: Span, frame: Frame) -> None:
        """Remembers where tensors came from (for error messages) and what was called (for `summary`)."""
        assert inner.call is not None
        inner.call.output = result
        if frame.call is not None:
            frame.call.children.append(inner.call)
        self.remember(inner.name, result, given, span, frame)

    def remember(self, name: str, result: Any, given: Sequence[Given], span: Span, frame: Frame) -> None:
        source = next((g.value for g in given if is_tensor(g.value)), None)
        if not frame.namespace.is_library and is_tensor(result) and result is not source:
            self.history[result] = Step(name, span, source)


def shape_names(pattern: syntax.TypeExpression) -> list[str]:
    return [dim.id for dim in pattern.dims if isinstance(dim, syntax.Name)]


CONSTANTS: dict[str, Any] = {"none": None, "pi": 3.141592653589793}

STATEMENTS: dict[type, Callable[..., Any]] = {
    syntax.Assign: Evaluator.run_assign,
    syntax.Return: Evaluator.run_return,
    syntax.If: Evaluator.run_if,
    syntax.For: Evaluator.run_for,
    syntax.Declare: Evaluator.run_declare,
    syntax.ExpressionStatement: Evaluator.run_expression,
}
EXPRESSIONS: dict[type, Callable[..., Any]] = {
    syntax.Number: lambda _, node, frame: node.value,
    syntax.String: lambda _, node, frame: node.value,
    syntax.Boolean: lambda _, node, frame: node.value,
    syntax.Name: Evaluator.evaluate_name,
    syntax.ListLiteral: Evaluator.evaluate_list,
    syntax.Unary: Evaluator.evaluate_unary,
    syntax.Binary: Evaluator.evaluate_binary,
    syntax.Index: Evaluator.evaluate_index,
    syntax.Pipe: Evaluator.evaluate_pipe,
    syntax.Call: Evaluator.evaluate_call,
}
