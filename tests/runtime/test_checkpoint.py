"""Checkpoints: complete or not at all, when written on a failing disk and when read from a damaged or other file."""

from __future__ import annotations

import errno
import io
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save as serialize

from runtime.errors import RuntimeUserError
from runtime.program import LoadedProgram
from runtime.training import checkpoint, tensor_files
from runtime.training.checkpoint import encode, load, save, write_atomically
from runtime.training.results import HISTORY_LIMIT, EpochResult, Position
from tests.runtime.tiny import contents, tiny_program

HASH = "ab" * 32
RESULT = EpochResult(1, {"loss": 0.5, "accuracy": 1 / 3}, {"loss": 0.1 + 0.2, "accuracy": math.nan}, 1.5)
POSITION = Position().after(RESULT)


def filled(seed: int) -> LoadedProgram:
    """A program whose variables are all different from those of another seed."""
    program = tiny_program()
    program.initialize(seed)
    for view in program.variables().values():
        view += np.asarray(seed + 1).astype(view.dtype)
    return program


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "last.safetensors"
    save(path, filled(1), POSITION, HASH)
    return path


def test_what_is_saved_comes_back(saved: Path) -> None:
    program = filled(2)
    position = load(saved, program, HASH)
    assert contents(program) == contents(filled(1))
    assert repr(position) == repr(POSITION)  # repr, since one metric is nan
    assert (position.epoch, position.best_epoch, position.best_loss) == (1, 1, 0.1 + 0.2)


def test_other_tools_can_read_it(saved: Path) -> None:
    from safetensors import safe_open

    with safe_open(saved, "np") as file:
        assert set(file.keys()) == set(tiny_program().variables())
        values = {name: json.loads(text) for name, text in file.metadata().items() if name != "sha256"}
    assert (values["model"], values["epoch"], values["program"]) == ("Tiny", 1, HASH)
    assert values["settings"]["batch"] == 8 and values["history"][0]["seconds"] == 1.5


def test_a_long_history_is_cut() -> None:
    position = Position()
    for epoch in range(1, 1203):
        position = position.after(EpochResult(epoch, {"loss": 1.0}, {"loss": 2.0 - epoch / 1000}, float(epoch)))
    data = encode(filled(1), position, HASH)
    assert len(data) < 200_000
    assert HISTORY_LIMIT == 1000


def fail(*_: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


class FullDisk(io.FileIO):
    """A file on a disk that is full after a few bytes."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        super().write(data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")


def fail_to_sync_folder(descriptor: int) -> None:
    if os.path.isdir(f"/proc/self/fd/{descriptor}"):
        fail()


@pytest.mark.parametrize(
    ("where", "name", "failure"),
    [
        (checkpoint, "open", fail),
        (checkpoint, "open", FullDisk),
        (os, "fsync", fail),
        (os, "replace", fail),
        (os, "fsync", fail_to_sync_folder),
        (os, "replace", KeyboardInterrupt),
    ],
)
def test_a_failing_disk_leaves_a_whole_checkpoint(
    where: Any, name: str, failure: Callable, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    interrupted = failure is KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(where, name, interrupt if interrupted else failure, raising=False)
        with pytest.raises(KeyboardInterrupt if interrupted else RuntimeUserError) as caught:
            save(saved, filled(3), POSITION, HASH)
    if not interrupted:
        assert "cannot write" in str(caught.value) and str(saved) in str(caught.value)
        assert "the previous contents are still there" in str(caught.value)
    assert os.listdir(saved.parent) == [saved.name], "the temporary file is removed"
    program = filled(2)
    load(saved, program, HASH)
    replaced = failure is fail_to_sync_folder  # the new file is in place, but may not survive a power cut
    assert contents(program) == contents(filled(3 if replaced else 1))


def refused(path: Path, data: bytes | None = None) -> str:
    """The message for a file that is refused; the program must not change."""
    if data is not None:
        path.write_bytes(data)
    program = filled(2)
    before = contents(program)
    with pytest.raises(RuntimeUserError) as caught:
        load(path, program, HASH)
    assert contents(program) == before
    return str(caught.value)


@pytest.mark.parametrize("make, kind", [(os.mkdir, "a folder"), (os.mkfifo, "a named pipe")])
def test_only_a_file_is_replaced(tmp_path: Path, make: Callable[[Path], None], kind: str):
    make(path := tmp_path / "place")
    with pytest.raises(RuntimeUserError, match=f"cannot write .*place(?s:.*)found: {kind}"):
        write_atomically(path, b"data")
    assert [*tmp_path.iterdir()] == [path] and not path.is_file()


def test_every_truncation_is_noticed(saved: Path) -> None:
    data = saved.read_bytes()
    for length in range(0, len(data), 13):
        refused(saved, data[:length])
    for message in (refused(saved, data[:-1]), refused(saved, data + b"\0")):
        assert "its size is wrong" in message


def test_a_flipped_bit_in_any_byte_is_noticed(saved: Path) -> None:
    data = saved.read_bytes()
    for index in range(len(data)):
        flipped = bytearray(data)
        flipped[index] ^= 1 << index % 8
        refused(saved, bytes(flipped))


def changed(change: Callable[[dict[str, np.ndarray]], None], **metadata: str) -> bytes:
    """A checkpoint with other tensors or metadata, and a SHA-256 that matches."""
    program = filled(1)
    arrays = dict(program.variables())
    change(arrays)
    header = encode(program, POSITION, HASH)
    values = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"]
    del values["sha256"]
    values |= metadata
    return serialize(arrays, {**values, "sha256": tensor_files.digest(values, arrays)})


@pytest.mark.parametrize(
    ("change", "name", "expected", "found"),
    [
        (lambda arrays: arrays.pop("w.v"), "w.v", "f32[6,3]", "no such tensor"),
        (lambda arrays: arrays.update(extra=np.zeros(2, np.int32)), "extra", "no such tensor", "i32[2]"),
        (lambda arrays: arrays.update(w=np.zeros((3, 6), np.float32)), "w", "f32[6,3]", "f32[3,6]"),
        (lambda arrays: arrays.update(w=np.zeros((6, 3))), "w", "f32[6,3]", "f64[6,3]"),
        (lambda arrays: arrays.update(w=np.zeros((6, 3), np.float16)), "w", "f32[6,3]", '"F16"[6,3]'),
        (lambda arrays: arrays.update(step=np.zeros(1, np.int32)), "step", "i32[]", "i32[1]"),
    ],
)
def test_the_first_tensor_that_differs_is_named(
    change: Callable[[dict[str, np.ndarray]], None], name: str, expected: str, found: str, saved: Path
) -> None:
    message = refused(saved, changed(change))
    assert f'does not fit the program: tensor "{name}" differs\n  expected: {expected}\n  found: {found}' in message


def test_another_program_is_named(saved: Path) -> None:
    program = filled(2)
    with pytest.raises(RuntimeUserError, match="written by another program") as caught:
        load(saved, program, "cd" * 32)
    assert HASH in str(caught.value) and "cd" * 32 in str(caught.value)
    assert contents(program) == contents(filled(2))
    load(saved, program)  # to evaluate or to predict, the variables are enough


@pytest.mark.parametrize(
    "metadata",
    [
        {"history": "[" * 100_000},
        {"history": '{"a": 1}'},
        {"history": '[{"epoch": 1}]'},
        {"history": "[]"},
        {"epoch": "1e999"},
        {"epoch": "-1"},
        {"epoch": "null"},
        {"best_epoch": "2"},
        {"best_loss": '"low"'},
        {"best_loss": "NaN"},
        {"history": '[{"epoch": 1, "train": {"loss": 1.0}, "test": {"loss": "low"}, "seconds": 1.0}]'},
        {"history": '[{"epoch": 1, "train": {"loss": 1.0}, "test": {"loss": 1.0}, "seconds": "long"}]'},
        {"history": '[{"epoch": 1, "train": {"loss": 1.0}, "test": {}, "seconds": 1.0}]'},
        {"history": '[{"epoch": 1, "train": "loss", "test": "loss", "seconds": 1.0}]'},
    ],
)
def test_metadata_that_cannot_be(metadata: dict[str, str], saved: Path) -> None:
    assert "its metadata is not valid" in refused(saved, changed(lambda arrays: None, **metadata))


def with_header(text: bytes, data: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text + data


def test_foreign_files(saved: Path) -> None:
    arrays = dict(filled(1).variables())
    assert "not a checkpoint of a training run" in refused(saved, serialize(arrays))
    assert "another format" in refused(saved, changed(lambda arrays: None, format="2"))
    for data in (b"", b"PK\3\4" + bytes(100), b"\x93NUMPY" + bytes(200), b"\x80\4" + bytes(100), bytes(1000)):
        assert "does not begin with the header" in refused(saved, data)
    for length in (0, 1, 101, (16 << 20) + 1, 2**63, 2**64 - 1):
        refused(saved, length.to_bytes(8, "little") + bytes(100))
    for text in (b"[]", b"3", b'{"a": 3}', b"{}", b'{"__metadata__": []}', b"[" * 200_000, b"\xff\xfe", b'{"a'):
        refused(saved, with_header(text))


def test_a_header_that_names_a_tensor_twice(saved: Path) -> None:
    data = saved.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + length], data[8 + length :]
    entry = b'"w":{"dtype":"F32","shape":[6,3],'
    assert entry in header
    twice = header.replace(entry, b'"w":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]},' + entry)
    refused(saved, with_header(twice, rest))


@pytest.mark.parametrize(
    "offsets",
    [[-72, 0], [0, 72.0], [72, 0], [0, 10**30], [0, 2**63], [2**60, 2**60 + 72], [0, 71], [4, 76], "all", None, []],
    ids=str,
)
def test_offsets_that_lie(offsets: Any, saved: Path) -> None:
    """They overlap, go backwards, leave gaps, or point outside of the file."""
    data = saved.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert header["w"]["data_offsets"] != offsets
    header["w"]["data_offsets"] = offsets
    refused(saved, with_header(json.dumps(header).encode(), data[8 + length :]))


def test_files_that_are_not_files(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "none.safetensors")
    assert "a folder" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "a named pipe" in refused(tmp_path / "pipe")
    assert "a device" in refused(Path("/dev/zero"))


def test_a_name_from_a_file_cannot_steer_the_terminal(saved: Path) -> None:
    message = refused(saved, changed(lambda arrays: arrays.update({"\x1b[2J": np.zeros(1)})))
    assert "\x1b" not in message and "x1b[2J" in message
