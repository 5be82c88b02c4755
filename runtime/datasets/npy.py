"""Reads the `.npy` format from untrusted files.

NumPy's own reader evaluates the header as Python text and can unpickle; this one matches the three fields of the header
and knows ten dtypes. Stored values are converted to dtypes of the language while they are read.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from runtime.datasets.dataset import read_as
from runtime.datasets.files import Readable, read_values
from runtime.errors import RuntimeUserError, quoted

MAGIC = b"\x93NUMPY"
LENGTH_BYTES = {1: 2, 2: 4, 3: 4}  # format version -> bytes of the header's length
LONGEST_HEADER = 4096  # bytes; NumPy writes 118
MOST_DIMENSIONS = 32

DTYPES = {  # stored -> (dtype that it is read as, dtype in the language)
    "b1": ("u1", "bool"),  # as bytes: a bool other than 0 and 1 would be undefined
    "u1": ("u1", "u8"),
    "u2": ("u2", "i32"),
    "i1": ("i1", "i32"),
    "i2": ("i2", "i32"),
    "i4": ("i4", "i32"),
    "i8": ("i8", "i64"),
    "f2": ("f2", "f32"),
    "f4": ("f4", "f32"),
    "f8": ("f8", "f64"),
}
IN_MEMORY = {
    "bool": np.dtype(np.bool_),
    "u8": np.dtype(np.uint8),
    "i32": np.dtype(np.int32),
    "i64": np.dtype(np.int64),
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
}

HINTS = {  # by the kind of a dtype that is not in DTYPES
    "u": "convert the array with .astype(numpy.int64)",
    "f": "convert the array with .astype(numpy.float32)",
    "U": "give each text a number, as numpy.unique(array, return_inverse=True) does",
    "O": "convert the array to numbers of one type; rows of different lengths must be padded",
}
FIELDS = (
    re.compile(r"'descr'\s*:\s*'([^']*)'"),
    re.compile(r"'fortran_order'\s*:\s*(True|False)\b"),
    re.compile(r"'shape'\s*:\s*\(([\d\s,]*)\)"),
)


@dataclass(frozen=True)
class Header:
    """The header of a `.npy` file: the type of its array, and where the data begin."""

    stored: np.dtype  # with the byte order of the file
    dtype: str  # in the language
    shape: tuple[int, ...]
    column_major: bool
    start: int  # bytes

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes_in_memory(self) -> int:
        return self.count * IN_MEMORY[self.dtype].itemsize

    def for_input(self, declared: str | None) -> Header:
        """The same array, read for an input of the model of this dtype; None for any use."""
        return replace(self, dtype=read_as(self.dtype, declared)) if declared else self

    def row_of(self, position: int) -> int:
        """The row of the value at a position in the file."""
        return position % self.shape[0] if self.column_major else position // (self.count // self.shape[0])


def read_header(stream: Readable, size: int, where: str) -> Header:
    """Reads a header and compares it with the size of the whole file in bytes. `where` names the array in messages.

    Raises RuntimeUserError if the header is not valid, the dtype is not in `DTYPES`, or the size does not match.
    """
    prefix = stream.read(8)
    if len(prefix) < 8 or prefix[:6] != MAGIC or prefix[6] not in LENGTH_BYTES:
        raise RuntimeUserError(f"{where} is not in the .npy format", expected="an array written by numpy.save")
    width = LENGTH_BYTES[prefix[6]]
    length = int.from_bytes(stream.read(width), "little")
    if length > LONGEST_HEADER:
        raise RuntimeUserError(
            f"the header of {where} is too long", expected=f"at most {LONGEST_HEADER} bytes", found=f"{length:,} bytes"
        )
    text = stream.read(length).decode("latin-1")
    header = _parse(text, where, start=8 + width + length)
    expected = header.start + header.count * header.stored.itemsize
    if size != expected:
        raise RuntimeUserError(
            f"{where} is {'truncated' if size < expected else 'longer than its header says'}",
            expected=f"{expected:,} bytes for {header.stored.name}{list(header.shape)}",
            found=f"{size:,} bytes",
        )
    return header


def _parse(text: str, where: str, start: int) -> Header:
    found = [field.findall(text) for field in FIELDS]
    if not all(len(values) == 1 for values in found[1:]):
        raise RuntimeUserError(
            f"the header of {where} is damaged", expected="one dtype, one order and one shape", found=quoted(text)
        )
    descriptions, (order,), (shape_text,) = found
    description = descriptions[0] if len(descriptions) == 1 else "of records"
    match = re.fullmatch(r"([<>|]?)(\w\d)", description)
    if match is None or match[2] not in DTYPES:
        described = "Python objects" if description in ("|O", "O") else f"dtype {_numpy_name(description)}"
        raise RuntimeUserError(
            f"{where} has values that cannot be trained on",
            expected="uint8, uint16, int8 to int64, bool, float16, float32 or float64",
            found=described if len(described) < 50 else quoted(described[:50]),
            hint=HINTS.get(description.lstrip("<>|=")[:1]),
        )
    dims = [dim.strip() for dim in shape_text.split(",") if dim.strip()]
    if len(dims) > MOST_DIMENSIONS or not all(dim.isdecimal() and len(dim) <= 18 for dim in dims):
        raise RuntimeUserError(f"the shape of {where} is damaged", found=quoted(f"({shape_text})"))
    read_as, dtype = DTYPES[match[2]]
    byte_order = ">" if match[1] == ">" else "<"
    return Header(np.dtype(byte_order + read_as), dtype, tuple(map(int, dims)), order == "True", start)


def _numpy_name(description: str) -> str:
    """`uint64` for `<u8`; a description that is none stays as it is."""
    match = re.fullmatch(r"[<>|]?([uifc])(\d{1,2})", description)
    kinds = {"u": "uint", "i": "int", "f": "float", "c": "complex"}
    return f"{kinds[match[1]]}{8 * int(match[2])}" if match else quoted(description)[1:-1]


def read_data(stream: Readable, header: Header, where: str) -> np.ndarray:
    """Reads the values after a header as a C-contiguous array in the dtype of the language.

    Raises RuntimeUserError if the data end too soon or do not fit in memory, and with row and value for numbers that
    the dtype does not have: too large, or not whole.
    """
    dtype = IN_MEMORY[header.dtype]
    flags = dtype.kind == "b" and header.stored.kind != "f"  # bytes, of which any but 0 is true
    narrowed = not flags and not np.can_cast(header.stored, dtype)
    check = partial(_check_narrowed, header, where) if narrowed else None
    values = read_values(stream, header.count, header.stored, dtype, where, check)
    if header.column_major:
        return np.ascontiguousarray(values.reshape(header.shape[::-1]).transpose())
    return values.reshape(header.shape)


def _check_narrowed(header: Header, where: str, start: int, stored: np.ndarray, values: np.ndarray) -> None:
    """Raises RuntimeUserError for the first `stored` value, from position `start`, that is none of the dtype."""
    floats = stored.astype(np.promote_types(stored.dtype, np.float32), copy=False)  # f16 does not have the limits below
    if values.dtype.kind == "f":
        bad = np.isinf(values) & np.isfinite(floats)
        complaint, expected = f"is too large for {header.dtype}", "at most 3.4e+38, or an input that is declared f64"
    else:
        low, high = (0, 1) if values.dtype.kind == "b" else (np.iinfo(values.dtype).min, np.iinfo(values.dtype).max)
        bad = (floats != np.trunc(floats)) | ~((floats >= low) & (floats < high + 1.0))
        complaint, expected = (
            f"is no value of {header.dtype}",
            f"whole numbers {low} … {high}, since the model takes {header.dtype}",
        )
    if bad.any():
        index = int(bad.argmax())
        row, value = header.row_of(start + index), stored[index].item()
        raise RuntimeUserError(
            f"row {row} of {where} {complaint}",
            expected=expected,
            found=f"{value:g}" if stored.dtype.kind == "f" else f"{value}",
        )
