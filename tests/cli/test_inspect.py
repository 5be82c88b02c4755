"""Every stage and pass as text, what a pass changes, IR text as input, the memory plan."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from compiler.cli.flags import STAGES
from compiler.ir.printer import print_module
from compiler.ir.reader import read_module
from compiler.passes.pipeline import labels
from tests.cli.running import Result, nnc
from tests.programs import MODELS, NUMPY_PIPELINE, ROOT

SOFTMAX = ROOT / "models/softmax.nn"
PASSES = [each.name for each in NUMPY_PIPELINE]
TWICE = next(name for name in PASSES if PASSES.count(name) > 1)
STEP = """\
graph train_step(%x: f32[B,4] input, %w: f32[4] param) {
  %0: f32[B,4] = mul(%x, %w)  // m.nn:2:3 dense_1
  %1: f32[B,4] = mul(%x, %w)  // m.nn:3:3
  %2: f32[B,4] = exp(%x)
  %3: f32[B,4] = add(%0, %1)
  %4: f32[4] = sum(%3, axes=[0], keepdims=false)
  return w=%4
}
"""


@pytest.fixture
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """IR text, as a file in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "step.ir").write_text(STEP)
    return "step.ir"


def output(result: Result) -> str:
    """The output of a command that succeeded."""
    assert (result.code, result.err) == (0, ""), result.err
    assert result.out.endswith("\n") and not result.out.endswith("\n\n")
    return result.out


def body_of(source: str) -> str:
    """The source without its title, which names the file."""
    return source.partition("\n")[2]


# emit -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", labels(NUMPY_PIPELINE))
def test_after_every_pass(label: str):
    text = output(nnc("emit", SOFTMAX, "--after", label))
    assert text.startswith("graph init(") and print_module(read_module(text)) == text


def test_a_name_alone_means_its_last_run():
    texts = [output(nnc("emit", SOFTMAX, "--after", label)) for label in (TWICE, f"{TWICE}:1")]
    assert texts[0] == output(nnc("emit", SOFTMAX, "--after", f"{TWICE}:{PASSES.count(TWICE)}")) != texts[1]
    assert output(nnc("emit", SOFTMAX, "--after", PASSES[-1])) == output(nnc("emit", SOFTMAX, "--stage", "optimized"))


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "tree"])
def test_one_graph(stage: str):
    text = output(nnc("emit", SOFTMAX, "--stage", stage, "--graph", "predict"))
    whole = output(nnc("emit", SOFTMAX, "--stage", stage))
    functions = re.findall(r"^def bind_(\w+)|^(?:graph|plan) (\w+)", text, re.MULTILINE)
    assert [a or b for a, b in functions if a != "variables"] == ["predict"]
    assert set(text.splitlines()) <= set(whole.splitlines())


def test_the_only_target():
    assert output(nnc("emit", SOFTMAX, "--target", "numpy")) == output(nnc("emit", SOFTMAX))


def test_passes_of_ones_choice():
    gradient = output(nnc("emit", SOFTMAX, "--stage", "gradient"))
    assert output(nnc("emit", SOFTMAX, "--stage", "optimized", "--passes", "")) == gradient
    first = output(nnc("emit", SOFTMAX, "--after", PASSES[0]))
    assert output(nnc("emit", SOFTMAX, "--stage", "optimized", "--passes", PASSES[0])) == first
    mlp = ROOT / "models/mlp.nn"
    assert "fused(" in output(nnc("emit", mlp, "--stage", "optimized", "--passes", "dead-code,fusion"))
    assert "fused(" not in output(nnc("emit", mlp, "--stage", "optimized", "--disable", "fusion"))


def test_a_mistake_in_a_later_stage_hides_no_earlier_one(tmp_path: Path):
    """A loss without a derivative, and passes that do not suffice to generate code."""
    path = tmp_path / "m.nn"
    flat = "fn flat(x, label: f32[B, 10]) { return 0.5 }\n"
    path.write_text(flat + re.sub(r"loss +=.*", "loss = flat", SOFTMAX.read_text()))
    assert nnc("emit", path, "--stage", "gradient").code == 2
    assert output(nnc("emit", path, "--stage", "tree")).startswith("Program ")
    assert output(nnc("emit", SOFTMAX, "--stage", "optimized", "--disable", "materialize"))
    assert nnc("emit", SOFTMAX, "--stage", "plan", "--disable", "materialize").code == 2


def test_what_a_pass_changed(step: str):
    assert output(nnc("emit", step, "--passes", "common-subexpressions", "--diff", "common-subexpressions")) == (
        "graph train_step: 2 removed, 1 added\n"
        "@@ line 1 @@\n"
        "  graph train_step(%x: f32[B,4] input, %w: f32[4] param) {\n"
        "    %0: f32[B,4] = mul(%x, %w)  // m.nn:2:3 dense_1\n"
        "-   %1: f32[B,4] = mul(%x, %w)  // m.nn:3:3\n"
        "    %2: f32[B,4] = exp(%x)\n"
        "-   %3: f32[B,4] = add(%0, %1)\n"
        "+   %3: f32[B,4] = add(%0, %0)\n"
        "    %4: f32[4] = sum(%3, axes=[0], keepdims=false)\n"
        "    return w=%4\n"
        "  }\n"
    ).replace("  }\n", "")


@pytest.mark.parametrize("label", labels(NUMPY_PIPELINE))
def test_differences_of_a_model(label: str):
    text = output(nnc("emit", ROOT / "models/bilstm.nn", "--diff", label, "--graph", "evaluate"))
    assert re.match(r"graph evaluate: (unchanged|(\d+ (removed|added|moved)(, )?)+)\n", text)


def test_graphs_that_a_pass_makes():
    text = output(nnc("emit", ROOT / "models/cnn.nn", "--diff", "fold-parameters", "--graph", "prepare"))
    assert re.match(r"graph prepare: \d+ added\n@@ line 1 @@\n\+ graph prepare\(", text)
    assert nnc("emit", ROOT / "models/cnn.nn", "--stage", "gradient", "--graph", "prepare").code == 2
    assert output(nnc("emit", ROOT / "models/cnn.nn", "--graph", "prepare"))


def test_dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    printed = output(nnc("emit", SOFTMAX, "--dump-dir", "a/b")).splitlines()
    files = sorted(path.name for path in (tmp_path / "a/b").iterdir())
    assert printed == [f"a/b/{name}" for name in files]
    stages = ["tree.txt", "graph.ir", "gradient.ir", *(f"{name}.ir" for name in PASSES), "plan.txt", "source.py"]
    assert files == [f"{number:02}-{name}" for number, name in enumerate(stages)]
    for name, stage in (("00-tree.txt", "tree"), ("01-graph.ir", "graph"), (files[-2], "plan"), (files[-1], "source")):
        assert (tmp_path / "a/b" / name).read_text() == output(nnc("emit", SOFTMAX, "--stage", stage)), name
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["b"]


def test_dump_of_one_graph_into_an_empty_folder(tmp_path: Path):
    (tmp_path / "d").mkdir()
    names = [
        Path(line).name
        for line in output(nnc("emit", SOFTMAX, "--dump-dir", tmp_path / "d", "--graph", "predict")).split()
    ]
    assert names[0] == "00-graph.ir" and "train_step" not in "".join(
        p.read_text() for p in (tmp_path / "d").glob("*.ir")
    )


def test_a_mistaken_program_leaves_no_dump(tmp_path: Path):
    (tmp_path / "m.nn").write_text(SOFTMAX.read_text().replace("Dense", "Dence"))
    assert nnc("emit", tmp_path / "m.nn", "--dump-dir", tmp_path / "d").code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["m.nn"]


# IR text --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_ir_text_of_a_model_becomes_the_same_source(model: str, tmp_path: Path):
    program = ROOT / f"models/{model}.nn"
    (tmp_path / "m.ir").write_text(output(nnc("emit", program, "--stage", "gradient", "--batch", "32")))
    sources = [output(nnc("emit", path, "--batch", "32")) for path in (program, tmp_path / "m.ir")]
    assert body_of(sources[0]) == body_of(sources[1])


def test_stages_of_ir_text(step: str, tmp_path: Path):
    assert output(nnc("emit", step, "--stage", "graph")) == STEP
    assert output(nnc("emit", step)).startswith("# step.ir, generated by nnc\n")
    names = [Path(line).name for line in output(nnc("emit", step, "--dump-dir", "d")).split()]
    assert names[:2] == ["00-graph.ir", f"01-{PASSES[0]}.ir"] and names[-1].endswith("-source.py")


def test_opt(step: str):
    once = output(nnc("opt", step, "--passes", "common-subexpressions,dead-code"))
    assert once == STEP.replace("  %1: f32[B,4] = mul(%x, %w)  // m.nn:3:3\n  %2: f32[B,4] = exp(%x)\n", "").replace(
        "%3: f32[B,4] = add(%0, %1)", "%1: f32[B,4] = add(%0, %0)"
    ).replace("%4: f32[4] = sum(%3,", "%2: f32[4] = sum(%1,").replace("w=%4", "w=%2")
    assert output(nnc("opt", step, "--passes", "")) == STEP
    assert output(nnc("opt", step)) == output(nnc("emit", step, "--stage", "optimized"))
    assert "exp" in output(nnc("opt", step, "--passes", "dead-code,common-subexpressions", "--disable", "dead-code"))


def test_opt_of_a_program():
    assert output(nnc("opt", SOFTMAX)) == output(nnc("emit", SOFTMAX, "--stage", "optimized"))


def test_list_of_passes():
    listed = output(nnc("opt", "--list"))
    assert [name for name in dict.fromkeys(PASSES) if f"\n{name}: " not in f"\n{listed}"] == []


def test_check_of_ir_text(step: str):
    assert output(nnc("check", step)) == "step.ir: graph train_step: no errors, 5 nodes\n"


def test_a_mistake_in_ir_text(step: str):
    Path(step).write_text(STEP.replace("sum(%3", "sum(%5"))
    for command in (["emit", step], ["opt", step], ["plan", step], ["check", step]):
        result = nnc(*command)
        assert (result.code, result.out) == (2, "")
        assert result.err == (
            "step.ir:6:20: error: %5 is not defined before this line\n"
            " 6 |   %4: f32[4] = sum(%5, axes=[0], keepdims=false)\n"
            "   |                    ^^\n"
            "  expected: an input, or the result of a node above\n"
            "  found: %5\n"
        )


@pytest.mark.parametrize(
    ("content", "fragment"),
    [(b"", "there is no graph in bad.ir"), (b"graph \xff", "bad.ir:1:7: error: the file is not UTF-8")],
)
def test_files_that_are_no_ir_text(content: bytes, fragment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("bad.ir").write_bytes(content)
    result = nnc("opt", "bad.ir")
    assert result.code == 2 and fragment in result.err and "Traceback" not in result.err


@pytest.mark.parametrize(
    ("number", "problem"),
    [(3, "a step of 3 for lengths 4"), (2, ""), (9, "a step of 9"), (0, "which the pass fusion would replace")],
)
def test_regions_that_cannot_run_are_refused(number: int, problem: str, tmp_path: Path):
    path = tmp_path / "region.ir"
    path.write_text(
        f"graph g(%x: f32[B,4] input) {{\n  %0: f32[B,4] = fused(%x, step={number}, body=graph body(%x0: f32[B,4]) {{\n"
        "    %0: f32[B,4] = exp(%x0)\n    %1: f32[B,4] = neg(%0)\n    return y0=%1\n  })\n  return y=%0\n}\n"
    )
    result = nnc("emit", path, "--passes", "pooling,convolutions,materialize")
    assert (result.code, problem in result.err) == (2 if problem else 0, True), result.err


# plan -----------------------------------------------------------------------------------------------------------------


def test_plan_at_several_batch_sizes():
    text = output(nnc("plan", SOFTMAX, "--batch", "64,128", "--graph", "predict"))
    rows = re.findall(r"^(\w+) +(\d+) +([\d,]+) +([\d,]+) +([\d,]+) +\d", text, re.MULTILINE)
    assert [row[1] for row in rows if row[0] == "train_step"] == ["64", "128"]
    assert "predict at batch 64: live bytes over" in text and "^ peak at node" in text
    assert re.search(r"at the peak, [\d,]+ bytes in \d+ tensors", text) and "\nbuffers: " in text
    assert "// " in text and "models/softmax.nn:6:19 dense_1" in text


def test_plan_explains_the_largest_graph_at_the_batch_of_the_program():
    assert "\ntrain_step at batch 128: live bytes over" in output(nnc("plan", SOFTMAX))


def test_plan_of_ir_text(step: str):
    text = output(nnc("plan", step, "--batch", "3"))
    assert "train_step at batch 3: " in text and "%w: f32[4]: variable, fixed offset" in text
