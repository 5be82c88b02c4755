"""Which passes run: chosen, disabled, in another order, and those that code generation requires."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.diagnostics import Diagnostics, UserError
from compiler.driver import compile_tree
from compiler.ir.interpreter import interpret
from compiler.language.parser import parse
from compiler.passes.pipeline import Pass, check_complete, choose, find_label, labels, with_optional
from compiler.targets.target import find_target
from tests.programs import BATCH, NUMPY_PIPELINE, PIPELINES, initialized, run_program, values_for

NAMES = list(dict.fromkeys(each.name for each in NUMPY_PIPELINE))
REQUIRED = [each.name for each in NUMPY_PIPELINE if each.required]
OPTIONAL = [name for name in NAMES if name not in REQUIRED]
RECURRENT = """
model Sequences(x: f32[B, 5, 4]) { return x |> Bidirectional(LSTM(6)) |> Dense(3) }
train Sequences { loss = mean_squared_error; optimizer = Adam; batch = 4 }
"""
CONVOLUTIONAL = """
model Images(x: f32[B, 9, 9, 2]) {
  return x |> Conv2D(4, 3) |> BatchNorm |> relu |> MaxPool2D(2) |> Flatten |> Dropout(0.2) |> Dense(3)
}
train Images { loss = mean_squared_error; optimizer = SGD(lr=0.1, momentum=0.9); batch = 4 }
"""


def names(passes: tuple[Pass, ...]) -> list[str]:
    return [each.name for each in passes]


@pytest.mark.parametrize(
    "each", dict.fromkeys(each for passes in PIPELINES.values() for each in passes), ids=lambda each: each.name
)
def test_a_pass_has_a_contract(each: Pass):
    """Its name, and what it does in words or equations."""
    assert each.contract.startswith(f"{each.name}: ") and len(each.contract) > len(each.name) + 20


def test_what_code_generation_relies_on_is_required():
    assert NUMPY_PIPELINE[-1].name == "materialize" and NUMPY_PIPELINE[-1].required
    assert "convolutions" in REQUIRED and "fusion" not in REQUIRED


def test_choose():
    assert choose(NUMPY_PIPELINE, None, []) == NUMPY_PIPELINE
    assert names(choose(NUMPY_PIPELINE, ["materialize", "dead-code", "dead-code"], [])) == [
        "materialize", "dead-code", "dead-code"
    ]  # fmt: skip
    assert choose(NUMPY_PIPELINE, [], []) == ()
    without = names(choose(NUMPY_PIPELINE, None, ["dead-code"]))
    assert without == [name for name in names(NUMPY_PIPELINE) if name != "dead-code"]
    assert names(choose(NUMPY_PIPELINE, ["fusion", "dead-code"], ["dead-code"])) == ["fusion"]


@pytest.mark.parametrize(("only", "disabled"), [(["dead-cod"], []), (None, ["dead-cod"])])
def test_unknown_passes_are_refused(only: list[str] | None, disabled: list[str]):
    with pytest.raises(UserError, match='there is no pass dead-cod; did you mean "dead-code"') as caught:
        choose(NUMPY_PIPELINE, only, disabled)
    assert "expected: index-checks, scan-hoisting, dead-code, " in str(caught.value)


def test_labels():
    one, other = Pass("one", lambda graph: graph), Pass("other", lambda graph: graph)
    passes = (one, other, one)
    assert labels(passes) == ["one:1", "other", "one:2"]
    assert [find_label(passes, name) for name in ("one", "one:1", "one:2", "other")] == [
        "one:2", "one:1", "one:2", "other"
    ]  # fmt: skip
    for wrong in ("one:3", "other:1", "noe"):
        with pytest.raises(UserError, match=f"the pass {wrong} does not run"):
            find_label(passes, wrong)


@pytest.mark.parametrize("name", REQUIRED)
def test_nothing_is_generated_without_a_required_pass(name: str):
    with pytest.raises(UserError, match=f"without the pass {name}"):
        check_complete(choose(NUMPY_PIPELINE, None, [name]), NUMPY_PIPELINE)


@pytest.mark.parametrize("order", [["materialize", "scans-together"], ["convolutions", "pooling", "materialize"]])
def test_nothing_may_undo_a_required_pass(order: list[str]):
    only = [name for name in REQUIRED if name not in order] + order
    with pytest.raises(UserError, match=f"where the pass {order[1]} runs after {order[0]}"):
        check_complete(choose(NUMPY_PIPELINE, only, []), NUMPY_PIPELINE)


@pytest.mark.parametrize("disabled", [[name] for name in OPTIONAL] + [OPTIONAL], ids=lambda names: "+".join(names[:2]))
@pytest.mark.parametrize("program", [RECURRENT, CONVOLUTIONAL], ids=["recurrent", "convolutional"])
def test_every_optional_pass_can_be_left_out(program: str, disabled: list[str]):
    """The generated step computes what the unoptimized graph says."""
    tree = parse(program, "test.nn", Diagnostics())
    compiled = compile_tree(tree, passes=choose(NUMPY_PIPELINE, None, disabled))
    program = initialized(compiled, seed=1)
    graph = compiled.module["train_step"]
    given = values_for(graph, BATCH)
    variables = {name: np.array(array) for name, array in program.variables().items()}
    expected = interpret(graph, given | variables, BATCH)
    found = run_program(program, "train_step", given, BATCH)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-4, err_msg=name)


def test_optional_passes():
    pipeline, optional = find_target("cupy").pipeline, find_target("cupy").optional
    found = names(with_optional(pipeline, optional, ["im2col"]))
    assert found.index("im2col") == found.index("sums-of-products") - 1
    assert with_optional(NUMPY_PIPELINE, (), []) == NUMPY_PIPELINE
    with pytest.raises(UserError, match="expected: im2col"):
        with_optional(pipeline, optional, ["im2row"])
    with pytest.raises(UserError, match="im2col is not an optional pass"):
        with_optional(NUMPY_PIPELINE, (), ["im2col"])
