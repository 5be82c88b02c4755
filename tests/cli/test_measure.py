"""profile, annotate and explain-fusion: their output, and their errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.running import nnc, process
from tests.programs import MODELS, ROOT

CNN = ROOT / "models/cnn.nn"
ROW = re.compile(r" *(-?\d+\.\d{3})  +(-?\d+\.\d)%  +(.*)")


def out(*arguments: str | Path) -> str:
    result = nnc(*arguments)
    assert (result.code, result.err) == (0, "")
    return result.out


@pytest.fixture
def nothing_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MNIST is not on this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("NNC_DATA", raising=False)


# profile --------------------------------------------------------------------------------------------------------------


def test_profile_runs_on_the_data_of_the_program(place: Path):
    lines = out("profile", "points.nn", "--steps", "5").splitlines()
    assert lines[0] == "points.nn: train_step, batch 16, 5 steps on points.npz"
    assert re.match(r"this machine at best, \d+ threads?: \d+\.\d GB/s .* \d+\.\d GFLOP/s", lines[1])
    rows = [match for line in lines if (match := ROW.match(line))]
    kernels, (inside, outside, whole) = rows[:-3], rows[-3:]
    assert {"3:19 dense_1", "3:52 dropout_1", "3:68 dense_2 (backward)", "10:15 dense_1.w"} <= {
        row[3].split("  ")[-1] for row in kernels
    }
    assert abs(sum(float(row[1]) for row in kernels) - float(inside[1])) < 0.001 * len(kernels)
    assert abs(float(inside[1]) + float(outside[1]) - float(whole[1])) < 0.002
    assert float(whole[2]) == 100


@pytest.mark.usefixtures("nothing_cached")
def test_profile_does_without_data_that_are_not_here():
    assert "train_step, batch 128, 1 step on random numbers" in out(
        "profile", ROOT / "models/softmax.nn", "--steps", "1"
    )


def test_profile_does_without_data_that_do_not_fit(place: Path):
    (place / "plain.nn").write_text("model Plain(x: f32[B, 3]) { return x |> Dense(2) |> tanh }\n")
    text = out("profile", "plain.nn", "--steps", "1")
    assert "plain.nn: predict, batch 128, 1 step on random numbers" in text and "tanh  1:53" in text


def test_what_follows_from_totals_is_not_measured(tmp_path: Path):
    text = "train M { loss = one_hot_mean_squared_error; metrics = [perplexity]; optimizer = Adam }"
    (tmp_path / "totals.nn").write_text("model M(image: f32[B, 784]) { return image |> Dense(10) }\n" + text)
    for command in ("profile", "annotate"):
        result = nnc(command, tmp_path / "totals.nn", "--graph", "metrics")
        assert result.code == 2 and "is not measured" in result.err
    assert "perplexity" in out("annotate", tmp_path / "totals.nn", "--graph", "metrics", "--no-time")


def test_profile_shows_the_inside_of_regions_and_scans():
    text = out("profile", ROOT / "models/bilstm.nn", "--steps", "1", "--graph", "predict", "--batch", "2", "--inside")
    outer, inner = text.split("inside regions and scans, time summed over all threads")
    assert "scan_1, scan_2" in outer and "lstm_1" in inner
    assert re.search(r" 28 .* matmul  6:8 bidirectional_1.lstm_2", inner)


def test_profile_follows_flags_for_passes(place: Path):
    assert "evaluate, batch 5, 1 step" in out(
        "profile", "points.nn", "--steps", "1", "--graph", "evaluate", "--batch", "5"
    )
    assert out("profile", "points.nn", "--steps", "1", "--disable", "fusion").count("region") == 0


# annotate -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_annotate_shows_every_line_of_the_model_once(model: str):
    path = ROOT / f"models/{model}.nn"
    lines = out("annotate", path, "--no-time").splitlines()
    shown = [line.partition("| ")[2] for line in lines if re.match(r" *\d+ \|", line)]
    assert shown == path.read_text().splitlines()


def test_annotate_tells_what_became_of_a_line():
    text = out("annotate", CNN, "--no-time")
    (line,) = re.findall(r"^ 14 \| .*?(?=^ 15 \|)", text, re.DOTALL | re.MULTILINE)
    assert re.search(r"shapes +dense_2 f32\[B,10\]", line)
    assert re.search(r"forward +0\.\d{3} MB  2 in total\n +0\.288 MB  matmul\n +0\.010 MB  add", line)
    assert re.search(r"backward .*2 matmul", line, re.DOTALL)
    (pooled,) = re.findall(r"^  5 \| .*?(?=^  6 \|)", text, re.DOTALL | re.MULTILINE)
    assert re.search(r"passes +.*fusion +\d+ of \d+ nodes in regions", pooled, re.DOTALL)
    source = out("emit", CNN).splitlines()
    (code,) = re.findall(r"code +(.*)", line)
    numbers = [int(part.split("–")[0]) for part in code.split(", ")]
    assert all("%" in source[number - 1] for number in numbers)
    assert any("kernels.matmul" in source[number - 1] for number in numbers)


def test_kernels_of_several_lines_stand_at_the_first():
    text = out("annotate", CNN, "--no-time")
    (optimizer,) = re.findall(r"^ 21 \| .*?(?=^ 22 \|)", text, re.DOTALL | re.MULTILINE)
    regions = re.findall(r"(region_\d+) \(at line (\d+)\)", optimizer)
    assert regions and "update" in optimizer
    for region, number in regions:
        (line,) = re.findall(rf"^ *{number} \| .*?(?=^ *{int(number) + 1} \|)", text, re.DOTALL | re.MULTILINE)
        assert f"MB  {region}\n" in line


def test_annotate_without_time_is_the_same_every_time():
    first, second = (process("annotate", CNN, "--no-time", PYTHONHASHSEED=seed) for seed in ("1", "2"))
    assert first == second and " ms " not in first.out


def test_annotate_measures(place: Path):
    text = out("annotate", "points.nn", "--steps", "2", "--graph", "predict")
    assert re.search(r"forward +\d+\.\d{3} ms +\d\.\d{3} MB", text) and "backward" not in text
    assert re.search(r"2 \| model Points.*\n +shapes +point f32\[B,4\]\n", text)


def test_imported_files_are_annotated_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts.nn").write_text("layer Twice(n)(x: f32[B, m]) {\n  return x |> Dense(n) |> Dense(n)\n}\n")
    (tmp_path / "model.nn").write_text('import "parts.nn"\nmodel M(x: f32[B, 3]) { return x |> Twice(4) }\n')
    text = out("annotate", "model.nn", "--no-time")
    own, imported = text.split("\nparts.nn\n")
    assert "twice_1 f32[B,4]" in own and "matmul" not in own
    assert "twice_1.dense_2 f32[B,4]" in imported and "2 matmul" in imported


# explain-fusion -------------------------------------------------------------------------------------------------------


def test_explain_fusion_describes_regions_in_words():
    text = out("explain-fusion", CNN, "--graph", "train_step")
    assert re.match(r"graph train_step: \d+ nodes, \d+ in 6 regions, \d+ not fused\n", text)
    assert re.search(r"region \d +\d+ nodes  line 5: BatchNorm \+ MaxPool2D \+ relu in conv_block_1\n", text)
    text = out("explain-fusion", CNN, "--graph", "evaluate", "--target", "cupy")
    assert re.search(r"region \d +\d+ nodes  lines 14, 19, 20: Dense \+ softmax_cross_entropy \+ accuracy\n", text)


def test_explain_fusion_says_why_neighbours_are_apart():
    text = out("explain-fusion", CNN, "--graph", "train_step")
    assert "not fused: matmul cannot be divided along the axis of the tiles" in text
    assert "not fused: too little work for several threads" in text
    kept = text.split("not fused: kept for the backward pass")[1].split("not fused:")[0]
    edges = [line for line in kept.splitlines() if "→" in line]
    assert edges and all(
        "(backward)" in edge.split("→")[1] and "(backward)" not in edge.split("→")[0] for edge in edges
    )


def test_explain_fusion_looks_into_scans():
    text = out("explain-fusion", ROOT / "models/bilstm.nn", "--graph", "predict", "--target", "cupy")
    bodies = text.split("body of the scan ")[1:]
    assert len(bodies) == 2 and all("Bidirectional lstm" in body and "1 region" in body for body in bodies)


def test_explain_fusion_takes_ir(tmp_path: Path):
    path = tmp_path / "step.ir"
    path.write_text(
        "graph f(%x: f32[B,9000] input) {\n  %0: f32[B,9000] = exp(%x)\n  %1: f32[B,9000] = neg(%0)\n  return y=%1\n}\n"
    )
    assert out("explain-fusion", path) == (
        "graph f: 2 nodes, 2 in 1 region, 0 not fused\n  region 1     2 nodes  made by the compiler: exp + neg\n"
    )
    assert out("explain-fusion", path, "--disable", "fusion") == (
        "graph f: 2 nodes, no regions\n  not fused: the pass fusion does not run\n    exp → neg\n"
    )


# Mistakes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("profile points.nn --steps 0", "--steps takes a number of steps\n  expected: from 1 to 1000000\n  found: 0"),
        ("profile points.nn --steps many", "found: many"),
        (
            "profile points.nn --graph trian_step",
            'there is no graph trian_step at stage optimized; did you mean "train_step"',
        ),
        ("profile points.nn --data nowhere.npz", 'there is no data set "nowhere.npz"'),
        ("profile points.nn --data digits", "the data set has no array for the model's input"),
        ("profile step.ir", "profile needs a program: IR text holds graphs"),
        ("annotate step.ir", "annotate needs a program"),
        ("annotate none.nn", "cannot read none.nn"),
        ("annotate points.nn --disable convolutions", "no code can be generated without the pass convolutions"),
        ("explain-fusion points.nn --graph forward", "there is no graph forward"),
        ("explain-fusion points.nn --steps 3", "explain-fusion has no flag --steps"),
    ],
)
def test_mistakes(place: Path, arguments: str, said: str):
    result = nnc(*arguments.split())
    assert result.code == 2 and result.out == "" and said in result.err
    assert "Traceback" not in result.err
