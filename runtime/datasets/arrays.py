"""The user's own data: a `.npz` file, or a folder of `.npy` files.

Arrays have the names of the model's inputs and targets, and one row per example along their first axis. The test rows
of an array `x` are the array `x_test`; if no array has one, a sixth of the rows, which the seed draws, is for testing.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import IO, NamedTuple

import numpy as np

from runtime.datasets.dataset import ArrayInfo, Dataset, Footprint, Split
from runtime.datasets.files import BLOCK, check_memory, reading, reason
from runtime.datasets.npy import IN_MEMORY, MAGIC, Header, read_data, read_header
from runtime.datasets.splitting import TEST_SHARE, TEST_STREAM, rows_apart
from runtime.errors import RuntimeUserError, did_you_mean, quoted

SUFFIX = ".npy"
TEST_SUFFIX = "_test"
TRAIN_SUFFIX = "_train"  # as in Keras; not ours
WIDEST = 8  # bytes of the largest stored value
MOST_ARRAYS = 1000
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
UNSUSPICIOUS = 256 << 20  # bytes that any archive may unzip to
MOST_EXPANSION = 200  # times its own size that a larger one may unzip to
BEGINNING, LONGEST_SAMPLE = 512, 40  # bytes that show the format of a file, and characters of them in a message
ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, RuntimeError, UnicodeDecodeError)  # RuntimeError: encrypted or unknown


Dtypes = Mapping[str, str]  # inputs and targets of a model by name, with their dtypes


class Member(NamedTuple):
    """One stored array: its name in messages, its size in bytes, and a function that opens it."""

    where: str
    size: int
    open: Callable[[], AbstractContextManager[IO[bytes]]]


def is_here(name: str, data_dir: str | None) -> bool:
    return any(map(os.path.exists, _candidates(name, data_dir)))


def find(name: str, data_dir: str | None, built_in: Iterable[str]) -> str:
    """The path of a data set: the name itself, or else that name below `data_dir`."""
    candidates = _candidates(name, data_dir)
    for path in candidates:
        if os.path.exists(path):
            return path
    raise RuntimeUserError(
        f"there is no data set {quoted(name)}",
        expected=f"{', '.join(built_in)}, or the path of a .npz file or of a folder of .npy files",
        found=f"nothing at {' or '.join(map(quoted, candidates))}",
        hint=did_you_mean(name, built_in) or _hint_for_relative(candidates[0]),
    )


def _hint_for_relative(path: str) -> str | None:
    if os.path.isabs(path) or not path:
        return None
    return f"a relative path starts at the current folder, {quoted(os.getcwd())}; --data PATH names another"


def _candidates(name: str, data_dir: str | None) -> list[str]:
    expanded = os.path.expanduser(name)
    return [expanded] + ([os.path.join(data_dir, expanded)] if data_dir else [])


def describe(path: str) -> dict[str, ArrayInfo]:
    """The arrays of an example, from headers only. Raises RuntimeUserError for headers that `load` would refuse."""
    with _members(path) as members:
        headers = _headers(members, path)
    return {name: ArrayInfo(header.dtype, header.shape[1:]) for name, header in _training(headers).items()}


def footprint(path: str, dtypes: Dtypes | None = None) -> Footprint:
    """The memory that `load` needs. Raises RuntimeUserError as `describe` does."""
    with _members(path) as members:
        headers = _headers(members, path)
    read = _for_inputs(headers, dtypes).values()
    sizes = [header.bytes_in_memory for header in read]
    turned = max((header.bytes_in_memory for header in read if header.column_major), default=0)  # read_data copies it
    training = _training(headers)
    rows = next(iter(training.values())).shape[0]
    if len(training) == len(headers):
        rows -= rows_apart(rows, TEST_SHARE)
    largest = max(sizes, default=0)
    drawn = int(largest * TEST_SHARE) if len(training) == len(headers) else 0  # while they are set apart
    return Footprint(sum(sizes), max(min(largest, BLOCK * WIDEST), drawn, turned), rows)


def load(path: str, dtypes: Dtypes | None = None, seed: int | None = 0) -> Dataset:
    """All arrays in memory, or those in `dtypes`, by the dtype of the input of the model that they are for.

    Without test arrays, `seed` draws the rows to test with; None takes the last.

    Raises RuntimeUserError with the file, the array, and the problem.
    """
    with _members(path) as members:
        whole = _headers(members, path)
        headers = _for_inputs(whole, dtypes)
        arrays = _read_all(members, headers, path)
    name, training = os.path.basename(os.path.normpath(path)), _training(whole)
    train = Split({name: arrays[name] for name in training if name in arrays})
    if len(training) == len(whole):
        return Dataset(name, *train.parted(TEST_SHARE, seed, TEST_STREAM), drawn=True)
    return Dataset(name, train, Split({name: arrays[name + TEST_SUFFIX] for name in train.arrays}))


def _for_inputs(headers: Mapping[str, Header], dtypes: Dtypes | None) -> dict[str, Header]:
    """The headers of those arrays that are inputs or targets of the model, as they are read for these; or all."""
    if dtypes is None:
        return dict(headers)
    declared = {name: dtypes.get(name.removesuffix(TEST_SUFFIX)) for name in headers}
    return {name: header.for_input(declared[name]) for name, header in headers.items() if declared[name]}


def read_inputs(
    path: str, single: str, dtypes: Dtypes, check: Callable[[dict[str, ArrayInfo]], None]
) -> dict[str, np.ndarray]:
    """The arrays in `dtypes` of a file for prediction, read for inputs of these dtypes.

    `single` is the name for the array of a `.npy` file. `check` gets the types of all arrays before any is read; it
    raises RuntimeUserError if one of `dtypes` is missing.
    """
    with _members_for_prediction(path, single) as members:
        whole = {name: _header(member) for name, member in members.items()}
        check({name: ArrayInfo(header.dtype, header.shape[1:]) for name, header in whole.items()})
        headers = {name: whole[name].for_input(dtype) for name, dtype in dtypes.items()}
        if len(headers) > 1:
            _check_rows(headers, path, least=1)
        return _read_all(members, headers, path)


def rows_of(path: str) -> int:
    """The most rows of any array of a file for prediction, from headers only; raises RuntimeUserError for bad ones."""
    with _members_for_prediction(path, "") as members:
        headers = [_header(member) for member in members.values()]
    return max((header.shape[0] for header in headers if header.shape), default=1)


def size_of_inputs(path: str, single: str, dtypes: Dtypes, scaled: Collection[str] = ()) -> Footprint:
    """The memory that the arrays in `dtypes` of a file for prediction need in these dtypes, and to convert them.

    Those in `scaled` are also multiplied. From headers only; raises RuntimeUserError as `rows_of` does.
    """
    with _members_for_prediction(path, single) as members:
        headers = {name: _header(members[name]).for_input(dtype) for name, dtype in dtypes.items() if name in members}
    sizes = {name: header.count * IN_MEMORY[dtypes[name]].itemsize for name, header in headers.items()}
    copied = [
        header.bytes_in_memory
        for name, header in headers.items()
        if header.column_major or name in scaled or header.dtype != dtypes[name]
    ]
    rows = max((header.shape[0] for header in headers.values() if header.shape), default=1)
    return Footprint(sum(sizes.values()), sum(copied), rows)


def _members_for_prediction(path: str, single: str) -> AbstractContextManager[dict[str, Member]]:
    return nullcontext({single: _file_member(single, path)}) if path.lower().endswith(SUFFIX) else _members(path)


def _read_all(members: Mapping[str, Member], headers: Mapping[str, Header], path: str) -> dict[str, np.ndarray]:
    check_memory(sum(header.bytes_in_memory for header in headers.values()), quoted(path))
    return {name: _read(members[name], header) for name, header in headers.items()}


def _members(path: str) -> AbstractContextManager[dict[str, Member]]:
    if os.path.isdir(path):
        return _folder_members(path)
    if path.lower().endswith(SUFFIX):
        raise RuntimeUserError(
            f"{quoted(path)} is a single array",
            expected="a .npz file, or a folder of .npy files",
            hint="pass the folder that has the arrays of all inputs and targets",
        )
    return _zip_members(path)


@contextmanager
def _folder_members(path: str) -> Iterator[dict[str, Member]]:
    try:
        names = sorted(name for name in os.listdir(path) if name.endswith(SUFFIX))
    except OSError as error:
        raise RuntimeUserError(f"{quoted(path)} cannot be listed", found=reason(error)) from error
    keys = [name.removesuffix(SUFFIX) for name in names]
    yield {key: _file_member(key, os.path.join(path, name)) for key, name in zip(keys, names, strict=True)}


def _file_member(key: str, path: str) -> Member:
    with reading(path) as file:
        size = os.fstat(file.fileno()).st_size
    return Member(_where(key, path), size, lambda: reading(path))


@contextmanager
def _zip_members(path: str) -> Iterator[dict[str, Member]]:
    with reading(path, *ZIP_DAMAGE) as file:
        size = os.fstat(file.fileno()).st_size
        _refuse_other_formats(file.read(BEGINNING), path)
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            _refuse_bombs(entries, size, path)
            members = {}
            for entry in entries:
                key = entry.filename.removesuffix(SUFFIX)
                if key == entry.filename or key in members or entry.compress_type not in COMPRESSIONS:
                    raise RuntimeUserError(
                        f"{quoted(path)} is not a .npz file as numpy.savez writes it",
                        expected=f"members that end in {SUFFIX}, each once, stored or deflated",
                        found=f"{quoted(entry.filename)}, compression {entry.compress_type}",
                    )
                members[key] = Member(_where(key, path), entry.file_size, lambda entry=entry: archive.open(entry))
            yield members


def _refuse_other_formats(start: bytes, path: str) -> None:
    """Raises RuntimeUserError for a file that does not begin as zip files do, with the format that it seems to have."""
    if start.startswith(b"PK"):
        return
    text = start.decode("utf-8", "ignore").strip()
    found, hint = "other bytes", None
    if not start:
        found = "an empty file"
    elif start.startswith(MAGIC):
        found, hint = "a single array", "rename it to end in .npy; a data set is a folder of .npy files"
    elif text.startswith("<"):
        found, hint = f"HTML or XML: {quoted(text[:LONGEST_SAMPLE])}", "was a web page downloaded instead of the data?"
    elif all(c.isprintable() or c.isspace() for c in text) and len(text.encode()) > len(start) - 4:
        found = f"text: {quoted(text[:LONGEST_SAMPLE])}"
        hint = "numpy.genfromtxt reads a CSV file; save its columns with numpy.savez"
    raise RuntimeUserError(
        f"{quoted(path)} is not a .npz file", expected="a file written by numpy.savez", found=found, hint=hint
    )


def _refuse_bombs(entries: list[zipfile.ZipInfo], size: int, path: str) -> None:
    """Compares the directory of an archive with its size, so that nothing out of proportion is ever unzipped."""
    unzipped = sum(entry.file_size for entry in entries)
    most = max(UNSUSPICIOUS, size * MOST_EXPANSION)
    if unzipped > most or sum(entry.compress_size for entry in entries) > size:
        raise RuntimeUserError(
            f"{quoted(path)} unzips to too much for its size",
            expected=f"at most {most:,} bytes from a file of {size:,} bytes",
            found=f"{unzipped:,} bytes",
            hint="save data that compress this well with numpy.savez instead of numpy.savez_compressed",
        )


def _where(key: str, path: str) -> str:
    return f"array {quoted(key)} in {quoted(path)}"


def _headers(members: Mapping[str, Member], path: str) -> dict[str, Header]:
    """All headers, checked to belong together."""
    if not 1 <= len(members) <= MOST_ARRAYS:
        raise RuntimeUserError(
            f"{quoted(path)} is not a data set", expected=f"1 … {MOST_ARRAYS} arrays", found=f"{len(members):,}"
        )
    headers = {name: _header(member) for name, member in members.items()}
    training = _training(headers)
    testing = {name: headers[name] for name in headers if name not in training}
    _check_rows(training, path, least=1 if testing else 2)
    _check_rows(testing, path, least=1)
    if testing:
        _check_pairs(training, testing, path)
    return headers


def _header(member: Member) -> Header:
    with member.open() as stream:
        return read_header(stream, member.size, member.where)


def _training(headers: Mapping[str, Header]) -> dict[str, Header]:
    return {name: header for name, header in headers.items() if not name.endswith(TEST_SUFFIX)}


def _check_rows(headers: Mapping[str, Header], path: str, least: int) -> None:
    """All arrays of a split have the same number of rows, and enough of them."""
    first = next(iter(headers), "")
    for name, header in headers.items():
        rows = header.shape[0] if header.shape else 0
        if rows < least:
            raise RuntimeUserError(
                f"{_where(name, path)} has too few rows",
                expected=f"at least {least} along the first axis",
                found=f"shape {list(header.shape)}",
            )
        if rows != headers[first].shape[0]:
            raise RuntimeUserError(
                f"the arrays in {quoted(path)} have different numbers of rows",
                expected=f"{headers[first].shape[0]:,} rows, as in {quoted(first)}",
                found=f"{rows:,} rows in {quoted(name)}",
            )


def _check_pairs(training: Mapping[str, Header], testing: Mapping[str, Header], path: str) -> None:
    """Every array has a test array of the same type, and every test array belongs to one."""
    wanted = {name + TEST_SUFFIX: name for name in training}
    if unpaired := sorted(wanted.keys() ^ testing.keys()):
        name = unpaired[0]
        partner = wanted.get(name, name.removesuffix(TEST_SUFFIX))
        absent, present = (name, partner) if name in wanted else (partner, name)
        raise RuntimeUserError(
            f"{_where(present, path)} has no counterpart",
            expected=f"an array {quoted(absent)}: either all arrays have test rows, or none has",
            found=", ".join(map(quoted, sorted({*training, *testing}))),
            hint=_hint_for_keras(training),
        )
    for test_name, name in wanted.items():
        here, there = training[name], testing[test_name]
        same = here.dtype == there.dtype or {here.dtype, there.dtype} == {"f32", "f64"}
        if not same or here.shape[1:] != there.shape[1:]:
            raise RuntimeUserError(
                f"{_where(test_name, path)} differs in type from {quoted(name)}",
                expected=f"{here.dtype}{list(here.shape[1:])} per example",
                found=f"{there.dtype}{list(there.shape[1:])}",
            )


def _hint_for_keras(training: Iterable[str]) -> str | None:
    """How to name arrays that are called `x_train`, as Keras calls them."""
    if not any(name.endswith(TRAIN_SUFFIX) for name in training):
        return None
    return f"no suffix {TRAIN_SUFFIX} is needed: numpy.savez(path, image=x_train, image_test=x_test, …)"


def _read(member: Member, header: Header) -> np.ndarray:
    with member.open() as stream:
        stream.read(header.start)
        array = read_data(stream, header, member.where)
        stream.read(1)  # at the end of a zip member its checksum is compared
    return array


def write_npz(file: str | IO[bytes], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a `.npz` file. numpy.savez does not accept every name, such as `file`."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}{SUFFIX}", "w", force_zip64=True) as member:
                np.save(member, array)
