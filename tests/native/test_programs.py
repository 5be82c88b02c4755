"""Programs of target c against the float64 interpreter and NumPy: the models, the examples and those in the documents.

Every graph runs on one, two and three threads, on one example and on a few, those of the models also on as many as
planned; bytes that are read before they are written are NaN or zero. Guards are as in together.py.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import tests.native.compiler_or_skip  # noqa: F401
from compiler.driver import Compilation, compile_tree, load_tree
from compiler.ir.interpreter import Arrays, interpret
from runtime.native.program import NativeProgram
from tests.docs.test_documents import PROGRAMS
from tests.examples.test_examples import EXAMPLES
from tests.gpu.running import assert_trained_alike, train, trained_on_host
from tests.gpu.running import compiled as compiled_for_training
from tests.native.running import THREADS, native_program, run_native
from tests.native.together import NAN, Together
from tests.programs import BATCH, MODELS, TRAINED_GRAPHS, compile_text, compiled_model
from tests.programs import values_for as random_values
from tests.targets.test_against_interpreter import assert_close

JOINED = True  # whether all programs are compiled together: not if only one of them is going to be run
TEXTS: dict[str, str] = {str(each.id): str(each.values[0]) for each in PROGRAMS}
FILES = {path.name: path for path in EXAMPLES}
NAMES = (*MODELS, *FILES, *TEXTS)


@cache
def compilation(name: str, target: str = "c") -> Compilation:
    if name in MODELS:
        return compiled_model(name, target)
    if name in FILES:
        return compile_tree(load_tree(FILES[name]), target=target)
    return compile_text(TEXTS[name], target=target)


@cache
def libraries() -> Together:
    return Together()


@cache
def loaded(name: str) -> NativeProgram:
    return native_program(compilation(name), libraries())


def native(name: str) -> NativeProgram:
    for each in NAMES if JOINED else ():
        loaded(each)
    return loaded(name)


def graphs_of(name: str) -> list[str]:
    return [each for each in TRAINED_GRAPHS if each in compilation(name).module]


def given(name: str, graph: str, batch: int) -> Arrays:
    """Inputs, and variables with their initial values."""
    compiled = compilation(name)
    host = native(name).load_host()
    host.initialize(3)
    classes = compiled.manifest.classes
    inputs = random_values(compiled.module[graph], batch)
    inputs |= {key: array % classes[key] for key, array in inputs.items() if key in classes}
    return inputs | {key: np.array(array) for key, array in host.variables().items()}


@pytest.mark.parametrize("name", NAMES)
def test_every_graph_of(name: str):
    program = native(name)
    for graph in graphs_of(name):
        for batch in (BATCH, 1, program.batch) if name in MODELS else (BATCH, 1):
            inputs = given(name, graph, batch)
            expected = interpret(compilation(name).module[graph], inputs, batch)
            for threads in THREADS:
                fill = 0 if threads == 2 else NAN
                assert_close(run_native(program, libraries(), graph, inputs, batch, threads, fill), expected)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("model", MODELS)
def test_training_is_that_of_numpy(model: str, threads: int):
    """A few steps, an evaluation and predictions, each with a smaller batch at the end."""
    found = compiled_for_training(model, "c")
    program = native_program(found, libraries())
    with libraries().threads(threads):
        assert_trained_alike(train(model, program), trained_on_host(model))
