"""Data files with false headers, overflows, a missing end, or that are not files: each is refused with one message."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import random
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from runtime.datasets import arrays, describe, load, mnist
from runtime.errors import RuntimeUserError

LABELS = bytes(range(10))


def npy(values: np.ndarray | np.float32) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def npy_with_header(text: str, data: bytes = b"", length: int | None = None) -> bytes:
    """A .npy file of version 1 with any header."""
    size = len(text) if length is None else length
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", size) + text.encode("latin-1") + data


def header(descr: str = "'|u1'", order: str = "False", shape: str = "(4,)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


def npz(path: Path, compression: int = zipfile.ZIP_STORED, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def refused(path: Path, *words: str) -> RuntimeUserError:
    """Both `load` and `describe` refuse the data set, with the words and the path in the message."""
    for read in (load, describe):
        with pytest.raises(RuntimeUserError) as error:
            read(path)
        text = str(error.value)
        assert path.name in text
        assert all(word in text for word in words), text
    return error.value


# IDX files

IDX_FILES = {
    "empty": b"",
    "only the magic number": struct.pack(">4B", 0, 0, 8, 1),
    "another dtype": struct.pack(">4BI", 0, 0, 13, 1, 10) + LABELS,
    "another rank": struct.pack(">4BII", 0, 0, 8, 2, 10, 1) + LABELS,
    "no rows": struct.pack(">4BI", 0, 0, 8, 1, 0),
    "too many rows": struct.pack(">4BI", 0, 0, 8, 1, 10_001) + bytes(10_001),
    "the most rows": struct.pack(">4BI", 0, 0, 8, 1, 2**32 - 1) + LABELS,
    "truncated": struct.pack(">4BI", 0, 0, 8, 1, 10) + LABELS[:9],
    "one byte more": struct.pack(">4BI", 0, 0, 8, 1, 10) + LABELS + b"\0",
    "html": b"<html>404</html>",
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("case", IDX_FILES)
def test_idx_files_that_lie(tmp_path: Path, case: str, zipped: bool):
    path = tmp_path / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(IDX_FILES[case]) if zipped else IDX_FILES[case])
    with pytest.raises(RuntimeUserError, match=path.name):
        mnist.read_idx(str(path), (10_000,))


def test_gzip_damage(tmp_path: Path):
    path = tmp_path / "labels.gz"
    intact = gzip.compress(struct.pack(">4BI", 0, 0, 8, 1, 10) + LABELS)
    for damaged in (intact[:-1], intact[:12], intact[:-6] + b"\xff" * 6, intact + b"garbage"):
        path.write_bytes(damaged)
        with pytest.raises(RuntimeUserError, match=r"labels\.gz"):
            mnist.read_idx(str(path), (10_000,))


def test_a_gzip_bomb_is_not_unzipped(tmp_path: Path):
    path = tmp_path / "labels.gz"
    with gzip.open(path, "wb", 1) as file:
        file.write(struct.pack(">4BI", 0, 0, 8, 1, 10))
        for _ in range(64):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(RuntimeUserError, match="longer than its header says"):
        mnist.read_idx(str(path), (10_000,))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


# .npy files

HEADERS = {
    "objects": (header("'|O'"), "Python objects"),
    "records": (header("[('a', '<i4')]"), "of records"),
    "text": (header("'<U8'"), "dtype <U8"),
    "complex numbers": (header("'<c8'"), "dtype complex64"),
    "an escape sequence": (header("'<\x1b[2J'"), r"dtype <\x1b[2J"),
    "u64": (header("'<u8'"), "dtype uint64"),
    "an endless dtype": (header("'" + "f4," * 200 + "'"), "cannot be trained on"),
    "no dtype": ("{'fortran_order': False, 'shape': (4,), }", "of records"),
    "no shape": ("{'descr': '|u1', 'fortran_order': False, }", "damaged"),
    "two shapes": (header() + header(), "damaged"),
    "negative": (header(shape="(-4,)"), "damaged"),
    "float": (header(shape="(4.0,)"), "damaged"),
    "code": (header(shape="(exit(),)"), "damaged"),
    "huge": (header(shape=f"({10**17}, {10**17})"), "truncated"),
    "too huge": (header(shape=f"({10**40},)"), "shape"),
    "too many dimensions": (header(shape=f"({'1,' * 33})"), "shape"),
    "nesting": ("(" * 4000, "damaged"),
    "longer": (header(shape="(5,)"), "truncated"),
    "shorter": (header(shape="(3,)"), "longer than its header says"),
}


@pytest.mark.parametrize("container", ["folder", "npz"])
@pytest.mark.parametrize("case", HEADERS)
def test_headers_that_lie(tmp_path: Path, case: str, container: str):
    text, words = HEADERS[case]
    content = npy_with_header(text, bytes(4))
    if container == "npz":
        path = npz(tmp_path / "data.npz", x=content)
    else:
        path = tmp_path / "data"
        path.mkdir()
        (path / "x.npy").write_bytes(content)
    refused(path, '"x"', words)


def test_a_header_that_is_too_long(tmp_path: Path):
    refused(npz(tmp_path / "data.npz", x=npy_with_header(" " * 60_000)), "too long")
    version_2 = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{"
    refused(npz(tmp_path / "data.npz", x=version_2), "too long")


def test_pickles_are_never_loaded(tmp_path: Path):
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "owned"),)

    stream = io.BytesIO()
    np.save(stream, np.array([Payload()], dtype=object), allow_pickle=True)
    refused(npz(tmp_path / "data.npz", x=stream.getvalue()), "Python objects")
    bare = tmp_path / "pickle.npz"
    bare.write_bytes(pickle.dumps(Payload()))
    refused(bare, "is not a .npz file")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({}, "arrays"),
        ({"x": npy(np.zeros((0, 3)))}, "too few rows"),
        ({"x": npy(np.zeros(1))}, "too few rows"),
        ({"x": npy(np.float32(1))}, "too few rows"),
        ({"x": npy(np.zeros(4)), "y": npy(np.zeros(5))}, "different numbers of rows"),
        ({"x": npy(np.zeros(4)), "x_test": npy(np.zeros(0))}, "too few rows"),
        ({"x": npy(np.zeros(4)), "x_test": npy(np.zeros((4, 2)))}, "differs in type"),
        ({"x": npy(np.zeros(4)), "x_test": npy(np.zeros(4, np.int8))}, "differs in type"),
        ({"x": npy(np.zeros(4)), "y": npy(np.zeros(4)), "x_test": npy(np.zeros(4))}, "no counterpart"),
        ({"x_test": npy(np.zeros(4))}, "no counterpart"),
        ({"x": b""}, "not in the .npy format"),
        ({"x": b"\x93NUMPY\x09\x00" + bytes(100)}, "not in the .npy format"),
    ],
)
def test_arrays_that_do_not_belong_together(tmp_path: Path, members: dict[str, bytes], words: str):
    refused(npz(tmp_path / "data.npz", zipfile.ZIP_STORED, **members), words)


# .npz files


def test_a_member_that_does_not_match_its_checksum(tmp_path: Path):
    path = npz(tmp_path / "data.npz", x=npy(np.arange(100, dtype=np.uint8)))
    content = bytearray(path.read_bytes())
    content[content.index(bytes(range(40, 60)))] ^= 1
    path.write_bytes(content)
    with pytest.raises(RuntimeUserError, match="undamaged"):
        load(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_cut_short_anywhere(tmp_path: Path, compression: int):
    path = npz(tmp_path / "data.npz", compression, x=npy(np.arange(9)), y=npy(np.arange(9)))
    content = path.read_bytes()
    for length in range(0, len(content) - 1, 7):
        path.write_bytes(content[:length])
        refused(path)


def test_a_zip_bomb_is_refused_by_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(arrays, "UNSUSPICIOUS", 1 << 20)
    path = npz(tmp_path / "data.npz", zipfile.ZIP_DEFLATED, x=npy(np.zeros(1 << 20)))
    error = refused(path, "unzips to too much for its size")
    assert error.hint is not None
    assert "numpy.savez " in error.hint


def test_members_that_share_their_bytes_are_refused(tmp_path: Path):
    path = npz(tmp_path / "data.npz", x=npy(np.zeros(1000)))
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(3):
            twin = zipfile.ZipInfo(f"y{number}.npy")
            original = archive.infolist()[0]
            for field in ("header_offset", "CRC", "compress_size", "file_size", "compress_type"):
                setattr(twin, field, getattr(original, field))
            archive.filelist.append(twin)
            archive.NameToInfo[twin.filename] = twin
        archive._didModify = True  # pyright: ignore
    refused(path)


def test_a_directory_that_lies_about_the_size(tmp_path: Path):
    path = npz(tmp_path / "data.npz", zipfile.ZIP_DEFLATED, x=npy(np.zeros(1000)))
    content = path.read_bytes()
    true_size = struct.pack("<I", 8128)
    assert content.count(true_size) == 2
    path.write_bytes(content.replace(true_size, struct.pack("<I", 2**31)))
    refused(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_only_the_compressions_of_numpy_are_read(tmp_path: Path, compression: int):
    refused(npz(tmp_path / "data.npz", compression, x=npy(np.zeros(4))), "stored or deflated")


def test_other_members_and_doubled_ones(tmp_path: Path):
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../evil.sh", b"echo")
    refused(path, "evil.sh")
    assert not (tmp_path.parent.parent / "evil.sh").exists()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy(np.zeros(4)))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("x.npy", npy(np.ones(4)))
    refused(path, "each once")


def test_more_than_the_machines_memory_is_refused_before_it_is_allocated(tmp_path: Path):
    folder = tmp_path / "data"
    folder.mkdir()
    rows = 1 << 43
    content = npy_with_header(header(shape=f"({rows},)"))
    with open(folder / "x.npy", "wb") as file:
        file.write(content)
        try:
            file.truncate(len(content) + rows)  # a sparse file: takes no space
        except OSError:
            pytest.skip("the file system has no files that large")
    with pytest.raises(RuntimeUserError, match="does not fit in memory"):
        load(folder)


# Not files


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipes_and_devices_are_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "data.npz")
    refused(tmp_path / "data.npz", "a named pipe")
    folder = tmp_path / "data"
    folder.mkdir()
    os.mkfifo(folder / "x.npy")
    refused(folder, "a named pipe")
    os.mkfifo(tmp_path / "train-images-idx3-ubyte")
    with pytest.raises(RuntimeUserError, match="has only a part of MNIST"):
        load("mnist", tmp_path)
    if os.path.exists("/dev/zero"):
        refused(Path("/dev/zero"), "a device")
        os.symlink("/dev/zero", tmp_path / "zero.npz")
        refused(tmp_path / "zero.npz", "a device")


def test_folders_and_names_that_are_none(tmp_path: Path):
    refused(tmp_path, "arrays")
    (tmp_path / "x.npy").mkdir()
    refused(tmp_path, "a folder")
    (tmp_path / "single.npy").write_bytes(npy(np.zeros(4)))
    refused(tmp_path / "single.npy", "a folder of .npy files")
    for name in ("no\0thing", "no/such/data.npz", "x" * 5000):
        with pytest.raises(RuntimeUserError, match="there is no data set"):
            load(name)


# Random damage


@pytest.mark.parametrize("form", ["stored", "deflated", "folder", "idx"])
def test_random_damage_is_refused_or_harmless(tmp_path: Path, form: str):
    """Anything but a RuntimeUserError fails the test."""
    chance = random.Random(form)
    if form == "idx":
        path = tmp_path / "images"
        intact = struct.pack(">4B3I", 0, 0, 8, 3, 2, 28, 28) + bytes(2 * 784)
    elif form == "folder":
        path = tmp_path / "x.npy"
        intact = npy(np.arange(12.0))
    else:
        path = tmp_path / "data.npz"
        compression = zipfile.ZIP_STORED if form == "stored" else zipfile.ZIP_DEFLATED
        intact = npz(path, compression, x=npy(np.arange(12.0)), y=npy(np.arange(12))).read_bytes()
    refusals: list[str] = []
    for _ in range(300):
        content = bytearray(intact)
        for _ in range(chance.choice((1, 2, 8))):
            position = chance.randrange(len(content))
            length = chance.choice((0, 1, 4))
            content[position : position + length] = chance.randbytes(chance.choice((1, 1, 4)))
        path.write_bytes(content)
        try:
            if form == "idx":
                mnist.read_idx(str(path), (60_000, 28, 28))
            else:
                load(tmp_path if form == "folder" else path)
        except RuntimeUserError as error:
            refusals.append(str(error))
    assert refusals
    assert all(path.name in text for text in refusals)
