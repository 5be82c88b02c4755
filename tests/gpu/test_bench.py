"""tests/bench/gpu.py on the emulated device: all its parts, its tables, and peers that fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import gpu
from tests.bench.peers.gpu_protocol import PeerError, Session, answer
from tests.gpu.conftest import has_device
from tests.gpu.cupy_or_skip import cupy  # noqa: F401
from tests.programs import ROOT

PEER = """
import json, sys, time
from tests.bench.peers.gpu_protocol import serve

def columns(model):
    if model == "hang":
        time.sleep(60)
    if model == "crash":
        sys.exit("the end")
    def broken():
        raise ValueError("no such layer\\nand more")
    print("something that a library prints")
    return {"good": lambda: lambda: 12.5, "broken": broken}

serve(columns, {"peer": "1.0"})
"""


def script(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "tests/bench/gpu.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_all_parts(tmp_path: Path):
    done = script("--emulate", "--models", "softmax", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert list(parts) == list(gpu.PARTS)
    replay = parts["replay"]["softmax"]
    assert replay == {"steps": 3, "same_again": True, "same_as_eager": True, "allocated_bytes": 0}
    for name in ("steps", "tf32"):
        assert list(parts[name]["rounds"]["softmax"]) == ["nnc graph", "nnc eager"]
        assert not parts[name]["wrong"]["softmax"]
    assert "models/softmax.nn: train_step, batch 2, 1 step on digits" in parts["profile"]["softmax"]
    for part in ("tests", "train", "sanitizer"):
        assert parts[part]["note"].startswith("not run: ")
    text = (tmp_path / "gpu.md").read_text()
    assert text == done.stdout.removesuffix("\n") and text.startswith("# the host\n")
    assert all(f"## {part.title}\n" in text for part in gpu.PARTS.values()) and "the figures mean nothing" in text


def test_without_time_everything_is_reported_as_not_run(tmp_path: Path):
    done = script(
        "--emulate", "--models", "mlp", "--minutes", "0", "--parts", "replay,steps,profile", "--out", tmp_path
    )
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert done.returncode == 0
    assert parts["replay"]["mlp"] == parts["profile"]["mlp"] == parts["steps"]["wrong"]["mlp"]["nnc"] == gpu.NO_TIME
    assert done.stdout.count(gpu.NO_TIME) == 3


@pytest.mark.skipif(has_device(), reason="there is a GPU")
def test_without_a_gpu(tmp_path: Path):
    done = script("--out", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --gpu needs the NVIDIA driver; expected: ") and done.stderr.count("\n") == 1


# Peers ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def session(tmp_path: Path):
    session = Session([sys.executable, "-c", PEER], tmp_path / "peer.txt", {"PYTHONPATH": str(ROOT)}, tmp_path)
    yield session
    session.end()


def test_a_peer_answers(session: Session):
    prepared = session.ask({"prepare": "cnn"}, 30)
    assert prepared == {"columns": {"good": "", "broken": "ValueError: no such layer"}, "versions": {"peer": "1.0"}}
    assert session.ask({"measure": "good"}, 30) == {"microseconds": 12.5}
    with pytest.raises(PeerError, match="KeyError: 'broken'"):
        session.ask({"measure": "broken"}, 30)
    assert session.ask({"measure": "good"}, 30) == {"microseconds": 12.5}


def test_a_peer_that_ends_or_hangs_is_started_again(session: Session):
    with pytest.raises(PeerError, match="the end"):
        session.ask({"prepare": "crash"}, 30)
    with pytest.raises(PeerError, match="no answer within 1 s"):
        session.ask({"prepare": "hang"}, 1)
    assert session.process is None
    assert session.ask({"prepare": "cnn"}, 30)["versions"] == {"peer": "1.0"}


def test_a_missing_package_costs_a_line(tmp_path: Path):
    command = [sys.executable, "-c", "import a_framework_that_nobody_has"]
    found: gpu.Found = {"rounds": {}, "wrong": {}, "versions": {}}
    sessions = {"torch": Session(command, tmp_path / "torch.txt", {}, tmp_path)}
    gpu.measure_model(sessions, "cnn", 2, found, gpu.Budget(30))
    assert found["rounds"] == {"cnn": {}}
    assert found["wrong"]["cnn"] == {"torch": "ModuleNotFoundError: No module named 'a_framework_that_nobody_has'"}
    assert gpu.show_steps(found)[-1].startswith("- cnn: torch: ModuleNotFoundError")


def test_all_columns_are_tried():
    made: list[str] = []

    def broken():
        made.append("broken")
        raise RuntimeError("out of memory")

    columns = {"broken": broken, "good": lambda: lambda: 1.0}
    assert answer({"prepare": "mlp"}, lambda model: columns, {}, {})["columns"] == {
        "broken": "RuntimeError: out of memory",
        "good": "",
    }
    assert made == ["broken"]


# The report -----------------------------------------------------------------------------------------------------------


def test_the_table_of_steps():
    rounds = {
        "mlp": {"nnc graph": [3.0, 1.0, 2.0], "nnc eager": [90.0], "torch graph": [5.0, 4.0, 6.0], "JAX jit": [8.0]},
        "cnn": {"nnc graph": [10.0], "torch graph": [5.0]},
    }
    lines = gpu.show_steps({"rounds": rounds, "wrong": {"cnn": {"JAX": "it hangs"}}, "versions": {"torch": "2"}})
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[:4]]
    assert cells[0] == ["model", "nnc graph", "nnc eager", "torch graph", "JAX jit", "nnc graph / best peer"]
    assert cells[2:] == [["mlp", "2.0", "90.0", "5.0", "8.0", "0.40"], ["cnn", "10.0", "-", "5.0", "-", "2.00"]]
    assert "median of 3 rounds" in lines[5] and lines[-1] == "- cnn: JAX: it hangs"


def log(folder: Path, accuracies: list[float]) -> Path:
    folder.mkdir()
    parts = [
        {"epoch": number, "train": {"loss": 0.1}, "test": {"loss": 0.2, "accuracy": accuracy}, "seconds": 10.0 + number}
        for number, accuracy in enumerate(accuracies, 1)
    ]
    text = "".join(json.dumps(part) + "\n" for part in [{"start_after_epoch": 0}, *parts])
    (folder / "log.jsonl").write_text(text)
    return folder


def test_the_table_of_training(tmp_path: Path):
    whole = gpu.trained(log(tmp_path / "whole", [0.5] * 19 + [0.91]), "softmax", 40.0)
    part = gpu.trained(log(tmp_path / "part", [0.9, 0.99]), "cnn", 40.0)
    low = gpu.trained(log(tmp_path / "low", [0.98] * 30), "bilstm", 40.0)
    assert whole and part and low and gpu.trained(tmp_path, "mlp", 1.0) is None
    assert (whole["epochs"], whole["seconds"], whole["seconds_per_epoch"]) == (20, 30.0, 1.0)
    lines = gpu.show_training({"softmax": whole, "mlp": gpu.NO_TIME, "cnn": part, "bilstm": low})
    softmax, mlp, cnn, bilstm = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:6])
    assert softmax[1:] == ["20 of 20", "30.00", "1.00", "0.1000", "0.2000", "0.9100", "0.9079 yes"]
    assert mlp[-1] == "not run: out of time"
    assert cnn[1] == "2 of 20" and cnn[-1] == "0.9932 stopped: out of time"
    assert bilstm[-1] == "0.9897 no"


def test_the_table_of_the_sanitizer():
    lines = gpu.show_sanitizer({"cnn": {"memcheck": "0 errors", "racecheck": "0 hazards"}, "done_after_seconds": 3})
    assert len(lines) == 3 and [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["cnn", "0 errors", "0 hazards"]
