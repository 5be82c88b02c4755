"""Safetensors files with JSON metadata and a SHA-256 over everything: the common form of checkpoints and dumps.

safetensors and hashlib are imported late, for a quick start.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from runtime.datasets.files import reason
from runtime.errors import RuntimeUserError, quoted

HEADER_LIMIT = 16 << 20  # bytes; a file that claims a longer header is not ours


def encoded(arrays: Mapping[str, np.ndarray], values: Mapping[str, Any], with_types: bool = False) -> bytes:
    """The contents of a file with these tensors and, as JSON in its metadata, these values."""
    from safetensors.numpy import save as serialize

    tensors = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    metadata = {name: json.dumps(value) for name, value in values.items()}
    return serialize(tensors, {**metadata, "sha256": digest(metadata, tensors, with_types)})


def digest(metadata: Mapping[str, str], arrays: Mapping[str, np.ndarray], with_types: bool = False) -> str:
    """SHA-256 of metadata, names and values; if nothing else checks dtypes and shapes, of these too."""
    import hashlib

    result = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        result.update(json.dumps([name, array.dtype.name, array.shape] if with_types else name).encode())
        result.update(array.data)
    return result.hexdigest()


@dataclass(frozen=True)
class TensorFile:
    """A file that is read, and the contents that it should have: `a checkpoint`."""

    path: Path
    contents: str

    def read_header(self, file: BinaryIO) -> tuple[dict[str, Any], bytes]:
        """The header, {name: {dtype, shape, …}} with "__metadata__": {name: text}, and all bytes up to its end.

        Raises RuntimeUserError if there is none.
        """
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if not 2 <= length <= min(HEADER_LIMIT, size - 8):
            raise self.damaged("it does not begin with the header of a safetensors file")
        text = file.read(length)
        try:
            header = json.loads(text, object_pairs_hook=with_unique_names)
        except (ValueError, RecursionError) as error:
            raise self.damaged("its header is not valid JSON") from error
        if not isinstance(header, dict) or not all(isinstance(entry, dict) for entry in header.values()):
            raise self.damaged("its header is not that of a safetensors file")
        return header, start + text

    def decoded(self, data: bytes, metadata: Mapping[str, str], with_types: bool = False) -> dict[str, np.ndarray]:
        """The tensors of a file with this metadata; raises RuntimeUserError if its SHA-256 does not match."""
        from safetensors import SafetensorError
        from safetensors.numpy import load as deserialize

        try:
            arrays = deserialize(data)
        except (SafetensorError, KeyError, ValueError) as error:
            raise self.damaged(reason(error)) from error
        known = {name: text for name, text in metadata.items() if name != "sha256"}
        if metadata.get("sha256") != digest(known, arrays, with_types):
            raise self.damaged("its SHA-256 does not match")
        return arrays

    def check_format(self, found: str | None, expected: int) -> None:
        """Raises RuntimeUserError for a file that another version of nnc wrote."""
        if found != str(expected):
            raise RuntimeUserError(
                f"{self.name} has another format of {self.contents}", expected=str(expected), found=quoted(str(found))
            )

    def damaged(self, problem: str, expected: str | None = None, found: str | None = None) -> RuntimeUserError:
        message = f"{self.name} is damaged or not {self.contents}: {problem}"
        return RuntimeUserError(message, expected=expected, found=found)

    @property
    def name(self) -> str:
        return quoted(str(self.path))


def with_unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs of a JSON object as a dict. A name that occurs twice would mean one thing here, another elsewhere."""
    if len(names := dict(pairs)) < len(pairs):
        raise ValueError("a name occurs twice")
    return names
