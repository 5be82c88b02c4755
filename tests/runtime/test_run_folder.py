"""The folder of a run: its creation, runs that may be resumed, and a log that agrees with the checkpoint."""

from __future__ import annotations

import errno
import json
import os
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runtime.errors import RuntimeUserError
from runtime.training.checkpoint import load
from runtime.training.run_folder import RunFolder, program_hash
from tests.runtime.tiny import contents, program_text, run_tiny, tiny_program

TEXT = """layer Odd(units)(x: f32[B, n]) {
  epochs = units
  return x
}

train CNN {
  data = mnist
  batch = 128
  epochs = 20
  patience = none
  checkpoint = 1
}
"""


def test_default_folders_are_named_by_model_and_time(tmp_path: Path) -> None:
    folders = [RunFolder.create("CNN", TEXT, root=tmp_path / "runs") for _ in range(3)]
    assert len({folder.path for folder in folders}) == 3
    for folder in folders:
        assert re.fullmatch(r"CNN-\d{8}-\d{6}(-\d)?", folder.path.name)
        assert folder.program.read_text() == TEXT


def test_only_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    RunFolder.create("CNN", TEXT, tmp_path / "empty")
    RunFolder.create("CNN", TEXT, tmp_path / "a" / "new" / "one")
    with pytest.raises(RuntimeUserError, match="is not empty"):
        RunFolder.create("CNN", TEXT, tmp_path / "empty")
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RuntimeUserError, match="cannot make the run folder"):
            RunFolder.create("CNN", TEXT, path)


def test_a_mistyped_folder_is_refused(tmp_path: Path) -> None:
    run_tiny(tmp_path / "Tiny-1", epochs=1)
    with pytest.raises(RuntimeUserError, match="there is no run folder") as caught:
        RunFolder.open(tmp_path / "Tiny-2")
    assert f'did you mean "{tmp_path / "Tiny-1"}"?' in str(caught.value)
    with pytest.raises(RuntimeUserError, match="is not a run folder"):
        RunFolder.open(tmp_path)
    with pytest.raises(RuntimeUserError, match="there is no run folder"):
        RunFolder.open(tmp_path / "Tiny-1" / "program.nn")
    for name in ("last", "previous"):
        (tmp_path / "Tiny-1" / f"{name}.safetensors").unlink()
    with pytest.raises(RuntimeUserError, match="is not a run with a checkpoint"):
        RunFolder.open(tmp_path / "Tiny-1")
    assert sorted(os.listdir(tmp_path)) == ["Tiny-1"], "nothing was created"


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("epochs = 20", "epochs = 40", True),
        ("data = mnist", 'data = "other/place.npz"', True),
        ("  patience = none\n", "", True),
        ("checkpoint = 1", "checkpoint = 5", True),
        ("batch = 128", "batch = 256", False),
        ("epochs = 20", "epochs = 20; batch = 2", False),
        ("epochs = units", "epochs = 2 * units", False),  # a variable of a layer, not the setting
        ("return x", "return 2 * x", False),
    ],
)
def test_what_makes_another_program(old: str, new: str, same: bool) -> None:
    assert old in TEXT
    assert (program_hash(TEXT.replace(old, new)) == program_hash(TEXT)) == same


def test_runs_from_before_validation_have_the_same_program() -> None:
    block = "train M {\n  epochs = 3\n  loss = mse\n}\n"
    assert program_hash(block) == program_hash(block.replace("  loss", "  validation = none\n  loss"))
    assert program_hash(block) != program_hash(block.replace("  loss", "  validation = 0.1\n  loss"))


def test_another_program_cannot_resume_a_run(tmp_path: Path) -> None:
    run_tiny(tmp_path / "run", epochs=1)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(RuntimeUserError, match="written by another program"):
        run_tiny(tmp_path / "run", resume=True, epochs=1, seed=8)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}


def test_a_resumed_run_keeps_its_new_settings(tmp_path: Path) -> None:
    run_tiny(tmp_path / "run", epochs=1)
    program, _, _ = run_tiny(tmp_path / "run", resume=True, epochs=2)
    assert RunFolder.open(tmp_path / "run").text == program_text(program)


def test_the_log_goes_back_to_the_checkpoint(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", "")
    run_tiny(folder.path, epochs=2)
    last, best, lines = folder.last.read_bytes(), folder.best.read_bytes(), folder.log.read_text()
    run_tiny(folder.path, resume=True, epochs=4)
    folder.last.write_bytes(last)  # as if killed before the checkpoint of epoch 3, while logging epoch 5
    folder.best.write_bytes(best)
    (folder.path / ".last.safetensors.123.tmp").touch()
    with open(folder.log, "a") as log:
        log.write('{"epoch": 5, "tr')
    program, _, _ = run_tiny(folder.path, resume=True, epochs=3)
    records = [json.loads(line) for line in folder.log.read_text().splitlines()]
    assert folder.log.read_text().startswith(lines)
    assert [record.get("epoch", "start") for record in records] == ["start", 1, 2, "start", "start", 3]
    assert not list(folder.path.glob(".*"))
    assert contents(program) == contents(run_tiny(tmp_path / "whole", epochs=3)[0])


def damage(path: Path) -> None:
    """Flips a bit of the last number. In the header, a flip could make a valid one that fits another program."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [damage, Path.unlink, make_a_folder, lambda path: os.truncate(path, 9)])
def test_a_last_checkpoint_that_cannot_be_read_falls_back(
    harm: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = contents(run_tiny(tmp_path / "whole", epochs=4)[0])
    folder = RunFolder(tmp_path / "run", "")
    run_tiny(folder.path, epochs=3)
    harm(folder.last)
    program, summary, _ = run_tiny(folder.path, resume=True, epochs=4)
    assert summary.trained == 2 and contents(program) == whole
    message = capsys.readouterr().err
    assert message.startswith(f'warning: "{folder.last}" ') and "Traceback" not in message
    assert f'hint: "{folder.previous}" is used instead, the end of epoch 2' in message
    assert folder.damaged.exists() == (harm is not Path.unlink)
    assert {load(path, program).epoch for path in (folder.last, folder.previous)} == {3, 4}


def test_nothing_is_lost_when_it_falls_back_twice(tmp_path: Path) -> None:
    """The damaged file must not become the previous one: after a kill in the next save, nothing would be left."""
    folder = RunFolder(tmp_path / "run", "")
    run_tiny(folder.path, epochs=2)
    damage(folder.last)
    program = tiny_program(epochs=2)
    assert RunFolder.open(folder.path).resume(program, program_text(program)).epoch == 1
    assert load(folder.last, program).epoch == 1 and not folder.previous.exists()


def test_two_damaged_checkpoints_are_an_error(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", "")
    run_tiny(folder.path, epochs=2)
    for path in (folder.last, folder.previous):
        damage(path)
    before = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    with pytest.raises(RuntimeUserError, match=r"last.safetensors\" is damaged"):
        run_tiny(folder.path, resume=True, epochs=3)
    assert before == {path.name: path.read_bytes() for path in folder.path.iterdir()}


def test_a_file_system_without_second_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    program, _, _ = run_tiny(tmp_path / "run", epochs=3)
    folder = RunFolder.open(tmp_path / "run")
    assert [load(path, program).epoch for path in (folder.previous, folder.last)] == [2, 3]
    assert not list(folder.path.glob(".*"))


def test_a_damaged_log_is_mended_from_the_checkpoint(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", "")
    run_tiny(folder.path, epochs=3)
    whole = folder.log.read_bytes()
    start, first, second, third = whole.splitlines(keepends=True)
    folder.log.write_bytes(start + b"\xff" + first[1:] + third[:20])
    run_tiny(folder.path, resume=True, epochs=3)
    assert folder.log.read_bytes().startswith(start + first + second + third)


def change_conditions(folder: RunFolder, **conditions: object) -> None:
    header, *rest = folder.log.read_text().splitlines()
    record = json.loads(header)
    record["conditions"] |= conditions
    folder.log.write_text("\n".join([json.dumps(record), *rest, ""]))


def test_other_conditions_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(tmp_path / "run", "")
    run_tiny(folder.path, epochs=1)
    change_conditions(folder, numpy="1.26.0", passes=["dead-code", "\x1b[2Jfusion"], threads={"": []}, blas=[[]] * 9)
    run_tiny(folder.path, resume=True, epochs=2)
    message = capsys.readouterr().err
    assert f'warning: "{folder.path}" continues under other conditions' in message
    found = message.partition("found: ")[2].strip()
    assert found == f"numpy 1.26.0 then, {np.__version__} now; passes dead-code, \\x1b[2Jfusion then, less now"
    run_tiny(folder.path, resume=True, epochs=3)
    assert not capsys.readouterr().err  # they are those of the last start


@pytest.mark.parametrize("conditions", [None, 1, [], {"": 0}, {"threads": None}, "threads"])
def test_conditions_may_be_anything(conditions: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(tmp_path / "run", "")
    run_tiny(folder.path, epochs=1)
    header, *rest = folder.log.read_text().splitlines()
    folder.log.write_text("\n".join([json.dumps({**json.loads(header), "conditions": conditions}), *rest, ""]))
    run_tiny(folder.path, resume=True, epochs=2)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("epoch", ["9" * 400, "-" + "9" * 5000, "1e999", "NaN", "[]", '"x"', "{}", "null", "true"])
def test_a_log_with_an_epoch_that_is_no_number(epoch: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", "")
    run_tiny(folder.path, epochs=1)
    with open(folder.log, "a") as log:
        log.write(f'{{"epoch": {epoch}}}\n{{"start_after_epoch": {epoch}}}\n')
    assert run_tiny(folder.path, epochs=2, resume=True)[1].epochs == 2


def test_the_log(tmp_path: Path) -> None:
    _, summary, _ = run_tiny(tmp_path / "run", epochs=2)
    header, first, second = map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines())
    assert header["program"] == program_hash(program_text(tiny_program(epochs=2)))
    assert (header["model"], header["seed"], header["start_after_epoch"]) == ("Tiny", 7, 0)
    assert set(header["conditions"]) == {"numpy", "blas", "machine", "threads", "target", "passes"}
    assert set(first) == {"epoch", "train", "test", "seconds"} and first["seconds"] < second["seconds"]
    assert (second["train"], second["test"]) == (summary.train, summary.test)


@pytest.mark.parametrize("name", ["program.nn", "log.jsonl"])
def test_files_of_gigabytes_are_not_read(tmp_path: Path, name: str) -> None:
    run_tiny(tmp_path / "run", epochs=1)
    os.truncate(tmp_path / "run" / name, 4 << 30)  # sparse: takes no space
    tracemalloc.start()
    with pytest.raises(RuntimeUserError, match=f'{name}" is too large'):
        run_tiny(tmp_path / "run", resume=True, epochs=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 << 20
