"""The output of training: the line of an epoch, the summary, and a bar on terminals only."""

from __future__ import annotations

import io
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.training.progress import Reporter, epoch_line, figure, summary_text
from runtime.training.results import EpochResult, Summary
from tests.runtime.tiny import run_tiny

ROOT = Path(__file__).parents[2]
RESULT = EpochResult(1, {"loss": 0.05412, "accuracy": 0.76508}, {"loss": 0.037, "accuracy": 0.8499}, 1.0949)
LINE = "loss: 0.0541 / 0.0370\taccuracy: 0.7651 / 0.8499\tstep 1  1.09 sec"
SUMMARY = Summary(
    epochs=20,
    trained=20,
    best_epoch=18,
    best_loss=0.01889,
    train=RESULT.train,
    test=RESULT.test,
    steps_per_second=8460.4,
    seconds_per_epoch=0.0621,
    stopped_early=False,
    folder=Path("runs/Softmax-20250131-120000"),
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_line_of_an_epoch() -> None:
    assert epoch_line(RESULT) == LINE
    more = replace(RESULT, train={**RESULT.train, "top5": 1.0}, test={**RESULT.test, "top5": math.nan}, epoch=120)
    assert epoch_line(more) == LINE.replace("step 1 ", "top5: 1.0000 / nan\tstep 120 ")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0.0000"),
        (3.21e-6, "3.21e-06"),
        (-4e-5, "-4.00e-05"),
        (0.00123, "0.0012"),
        (1.5e9, "1.50e+09"),
        (12.3, "12.3000"),
    ],
)
def test_figures_that_four_decimals_would_hide(value: float, shown: str) -> None:
    assert figure(value) == shown


def test_the_summary() -> None:
    assert summary_text(SUMMARY).splitlines() == [
        "20 epochs, best epoch 18 (test loss 0.0189)",
        "8,460 steps/s, 0.06 sec per epoch",
        "runs/Softmax-20250131-120000",
    ]
    early = replace(SUMMARY, stopped_early=True)
    assert "stopped early: the test loss no longer improved" in summary_text(early)


def test_plain_output_is_one_line_per_epoch_and_the_summary(tmp_path: Path) -> None:
    _, summary, printed = run_tiny(tmp_path / "run")
    *epochs, last, speed, folder = printed.splitlines()
    number = r"\d+\.\d{4}"
    for epoch, line in enumerate(epochs, 1):
        expected = rf"loss: {number} / {number}\taccuracy: {number} / {number}\tstep {epoch}  \d+\.\d\d sec"
        assert re.fullmatch(expected, line)
    assert len(epochs) == 3 and last.startswith("3 epochs, best epoch 3") and "steps/s" in speed
    assert folder == str(summary.folder)
    assert "\x1b" not in printed


def test_quiet_prints_the_summary_alone() -> None:
    for stream in (io.StringIO(), Terminal()):
        reporter = Reporter(quiet=True, stream=stream)
        assert reporter.interval == math.inf
        reporter.start(1, 20, 469)
        reporter.epoch(RESULT)
        reporter.finish(SUMMARY)
        assert stream.getvalue() == summary_text(SUMMARY) + "\n"


def test_a_bar_on_a_terminal(monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    reporter = Reporter(stream=stream)
    assert reporter.interval == 0.1
    for epoch in (1, 2):
        reporter.start(epoch, 20, 469)
        reporter.step(100)
        reporter.step(200)
        reporter.epoch(RESULT)
    shown = stream.getvalue()
    for part in ("epoch 1/20", "epoch 2/20", "100/469", "200/469", "steps/s"):
        assert part in shown
    assert shown.count(LINE + "\n") == 2, "tabs and all"
    reporter.start(3, 20, 469)
    reporter.step(1)
    reporter.close()
    reporter.close()


def test_rich_is_not_imported_without_a_terminal(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from tests.runtime.tiny import run_tiny; before = set(sys.modules);"
        "assert not {'rich', 'safetensors'} & before;"
        f"run_tiny(pathlib.Path({str(tmp_path / 'run')!r})); assert 'rich' not in sys.modules"
    )
    environment = os.environ | {"PYTHONPATH": "."}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment, timeout=30)
