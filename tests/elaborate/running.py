"""Helpers for short tests: the value of an expression, the results of a model, the mistakes of a file."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.diagnostics import Diagnostics, UserError
from compiler.driver import Compilation, check_models
from compiler.elaborate.context import Context, Variables
from compiler.elaborate.evaluator import Evaluator
from compiler.elaborate.frames import Frame
from compiler.elaborate.library import user_namespace, with_imports
from compiler.ir.graph import Graph
from compiler.language.parser import parse, parse_expression
from tests.programs import compile_text, initialized, run_program

MARK = "§"  # precedes the place that a diagnostic points at
TRAINING = "train M { loss = mean_squared_error; optimizer = SGD(lr=0.1) }"


def value_of(expression: str, declarations: str = "") -> Any:
    """The value of an expression at compile time; raises UserError."""
    diagnostics = Diagnostics()
    namespace = user_namespace(parse(declarations, "test.nn", diagnostics), diagnostics)
    evaluator = Evaluator(diagnostics, namespace, Variables(), Context(Graph("test")), training=False)
    value = evaluator.evaluate(parse_expression(expression, "expression", diagnostics), Frame(namespace, "", "fn"))
    diagnostics.raise_if_any()
    return value


def model(body: str, inputs: str = "x: f32[B, 4]", training: bool = False) -> str:
    """A program of one model, called M; with training, its first output is fitted to an array `target`."""
    return f"model M({inputs}) {{ {body} }}\n{TRAINING if training else ''}\n"


def predictions(program: str, *inputs: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs of a model by name, and its variables, for inputs in order."""
    return predicted(compile_text(program), *inputs)


def predicted(compiled: Compilation, *inputs: np.ndarray) -> dict[str, np.ndarray]:
    names = [spec.name for spec in compiled.manifest.inputs]
    given = dict(zip(names, inputs, strict=True))
    return run_program(initialized(compiled), "predict", given, len(inputs[0]))


def output(program: str, *inputs: np.ndarray) -> np.ndarray:
    """The only output of a model."""
    compiled = compile_text(program)
    (spec,) = compiled.manifest.outputs
    return predicted(compiled, *inputs)[spec.name]


def examples(*shape: int) -> np.ndarray:
    """A different number in each place: 0, 1, 2, … over 10."""
    return (np.arange(np.prod(shape)).reshape(shape) / 10).astype(np.float32)


def mistakes(program: str) -> UserError:
    """The error of a program that must have one."""
    try:
        compile_text(program.replace(MARK, ""))
    except UserError as error:
        return error
    raise AssertionError("no mistake was found")


def marked_places(program: str) -> list[tuple[int, int]]:
    """Line and column of each mark, counted without the marks."""
    places = []
    for number, line in enumerate(program.split("\n"), start=1):
        parts = line.split(MARK)
        places += [(number, sum(map(len, parts[: i + 1])) + 1) for i in range(len(parts) - 1)]
    return places


def check_warnings(program: str, *fragments: str) -> None:
    """The program is valid, has one warning at each mark and no other, and the warnings contain all fragments."""
    diagnostics = Diagnostics()
    tree = with_imports(parse(program.replace(MARK, ""), "test.nn", diagnostics), diagnostics)
    check_models(tree, None, diagnostics)
    text = "\n".join(diagnostics.warning_texts())
    assert [(d.span.line, d.span.column) for d in diagnostics.warnings() if d.span] == marked_places(program), text
    for fragment in fragments:
        assert fragment in text, text


def check_mistakes(program: str, *fragments: str) -> None:
    """The program has one mistake at each mark and no other, and the messages contain all fragments."""
    error = mistakes(program)
    text = str(error)
    found = [(d.span.line, d.span.column) for d in error.diagnostics if d.span]
    assert found == marked_places(program), text
    for fragment in fragments:
        assert fragment in text, text
    assert "Traceback" not in text and "object at 0x" not in text
