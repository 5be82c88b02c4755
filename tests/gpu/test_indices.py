"""Indices outside their tables on the emulated device: nothing is read outside, and the error names the first one."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from compiler.diagnostics import Diagnostics
from compiler.driver import Compilation, compile_tree
from compiler.elaborate.library import with_imports
from compiler.language.parser import parse
from runtime.errors import IndexOutside
from runtime.feeding import Watch, runner_of
from tests.gpu.running import device_program_of
from tests.numerics.test_indices import FORMS, NO_ROW, TEXT

pytestmark = pytest.mark.usefixtures("emulated")

EXAMPLES, BATCH, BAD = 19, 8, 17  # the last batch is smaller


@cache
def compiled(text: str) -> Compilation:
    diagnostics = Diagnostics()
    return compile_tree(with_imports(parse(text, "test.nn", diagnostics), diagnostics), target="cupy")


def data(form: str) -> dict[str, np.ndarray]:
    words = np.full((EXAMPLES, 3), 5, np.int32)
    words[[BAD, BAD + 1], 1] = 9 if form in ("too large", "a column") else 0
    return {"word": words, "target": np.zeros(EXAMPLES, np.float32)}


def runner(form: str, graph: str, arrays: dict[str, np.ndarray], graphs: bool = True) -> Any:
    found = compiled(TEXT.format(FORMS[form]))
    program = device_program_of(found.executable, found.manifest, graphs)
    program.initialize(seed=1)
    needed = {name: arrays[name] for name in program.inputs(graph, 1) if name in arrays}
    return runner_of(program, graph, needed)


def check(error: IndexOutside, form: str, data: str, when: str) -> None:
    value, size = {"too large": (10, 10), "a column": (18, 18)}.get(form, (-1, 9))
    assert (error.value, error.size, error.when) == (value, size, when)
    assert error.row == ("" if form in NO_ROW else f"row {BAD} of the {data} data")
    assert error.place.startswith("test.nn:")


@pytest.mark.parametrize("graph", ["train_step", "evaluate"])
@pytest.mark.parametrize("form", FORMS)
def test_the_error_comes_with_the_loss(form: str, graph: str):
    part, what = {"train_step": ("training", "step"), "evaluate": ("test", "batch")}[graph]
    running = runner(form, graph, data(form))
    with pytest.raises(IndexOutside) as caught:
        running.means(np.arange(EXAMPLES), BATCH)
    check(caught.value, form, part, f"{what} 3 of 3")
    assert np.isfinite(running.means(np.arange(BAD), BATCH)["loss"])


@pytest.mark.parametrize("graphs", [False, True])
def test_the_error_comes_while_the_epoch_runs(graphs: bool):
    """If progress is shown, or once a second."""
    running = runner("embedding", "train_step", data("embedding"), graphs)
    shown: list[int] = []
    with pytest.raises(IndexOutside) as caught:
        order = np.array([BAD, *range(BAD)])
        running.means(order, 1, watch=Watch(shown.append, interval=0.0))
    assert caught.value.row == f"row {BAD} of the training data" and caught.value.when == f"step 1 of {len(order)}"
    assert not shown


@pytest.mark.parametrize("form", FORMS)
def test_predict(form: str):
    running = runner(form, "predict", data(form))
    counts = []
    with pytest.raises(IndexOutside) as caught:
        counts += [count for count, outputs in running.batches(np.arange(EXAMPLES), BATCH)]
    check(caught.value, form, "given", "batch 3 of 3")
    assert [count for count, _ in running.batches(np.arange(16), BATCH)] == [BATCH, BATCH]


def test_an_index_of_the_optimizer():
    """Its check is not in the graphs before differentiation."""
    text = """
model M(x: f32[B, 2]) { return x |> Dense(1) }
optimizer Table(p, g, step) { return p - gather(full([5], 0.1), step) * g }
train M { loss = mean_squared_error; optimizer = Table; batch = 2 }
"""
    found = compiled(text)
    program = device_program_of(found.executable, found.manifest)
    program.initialize(seed=1)
    arrays = {"x": np.ones((16, 2), np.float32), "target": np.ones((16, 1), np.float32)}
    with pytest.raises(IndexOutside) as caught:
        runner_of(program, "train_step", arrays).means(np.arange(16), 2)
    error = caught.value
    assert (error.value, error.size, error.row, error.when) == (5, 5, "", "step 6 of 8")
    assert error.layer.startswith("dense_1.")


def test_what_cannot_leave_its_table_is_not_reported():
    text = TEXT.format("return word |> Embedding(9, 4)")
    assert not compiled(text).manifest.checks and "check" not in compiled(text).executable.source
