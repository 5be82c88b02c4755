"""The data set `mnist`: found in one of the user's folders or in the cache, else downloaded into the cache.

The four files are in the IDX format, zipped or not. Only the structure of the user's files is checked, so a part of
MNIST, or another data set of the same form, can take its place; downloads must be MNIST to the byte. `hashlib` and the
code for downloads are imported late: they are not needed if the files exist.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from runtime.datasets.dataset import ArrayInfo, Dataset, Footprint, Report, Split
from runtime.datasets.files import BLOCK, Readable, read_values, reading, reason, user_cache
from runtime.errors import RuntimeUserError, quoted


class IdxFile(NamedTuple):
    """One of the four files: the start of its name, the largest shape that it may have, its checksum unzipped."""

    stem: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def name(self) -> str:
        return f"{self.stem}-idx{len(self.shape)}-ubyte"


# Checksums are of the unzipped bytes, since programs that zip files differ in what they write.
TRAIN_IMAGES = IdxFile(
    "train-images", (60_000, 28, 28), "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
)
TRAIN_LABELS = IdxFile("train-labels", (60_000,), "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5")
TEST_IMAGES = IdxFile(
    "t10k-images", (10_000, 28, 28), "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
)
TEST_LABELS = IdxFile("t10k-labels", (10_000,), "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2")
FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)
Paths = dict[IdxFile, str]

MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
LARGEST_DOWNLOAD = 16 << 20  # bytes; the largest file has 9.9 million
SUBFOLDERS = ("", "mnist", os.path.join("MNIST", "raw"))  # below a data folder, as other programs place the files
GZIP_MAGIC = b"\x1f\x8b"
IDX_BYTES = 8  # the code of the IDX format for unsigned bytes
INFO = {"image": ArrayInfo("u8", (28, 28)), "label": ArrayInfo("u8", ())}
FOOTPRINT = Footprint(
    sum(math.prod(file.shape) for file in FILES), BLOCK, TRAIN_LABELS.shape[0]
)  # of the published files
HINT = (
    "pass a folder with the four MNIST files through --data-dir or NNC_DATA, "
    "or train on digits that nnc draws with --data digits"
)


def load(data_dir: str | None, report: Report) -> Dataset:
    """MNIST from the first of `data_dir`, the folder in $NNC_DATA and the cache that has it; else from a download.

    Raises RuntimeUserError if a folder that the user named does not exist or has only some of the files, if a file
    does not fit its name, and if nothing was found and the download fails.
    """
    train, test = read(_found(data_dir, report) or _downloaded(data_dir, report))
    return Dataset("mnist", train, test)


def read(paths: Paths) -> tuple[Split, Split]:
    """The training and the test data in the four files."""
    return _split(paths, TRAIN_IMAGES, TRAIN_LABELS), _split(paths, TEST_IMAGES, TEST_LABELS)


def is_here(data_dir: str | None) -> bool:
    """Whether `load` needs no download."""
    return bool(_found(data_dir, lambda text: None)) or len(files_in(cache_folder())) == len(FILES)


def cache_folder() -> str:
    """The folder of downloads."""
    return user_cache("mnist")


def _named_folders(data_dir: str | None) -> Iterator[str]:
    """The folders that the user named."""
    for folder, source in ((data_dir, "--data-dir"), (os.environ.get("NNC_DATA"), "NNC_DATA")):
        if folder:
            if not os.path.isdir(folder):
                raise RuntimeUserError(
                    f"{source} is not a folder", expected="a folder with data sets", found=quoted(folder)
                )
            yield folder


def _found(data_dir: str | None, report: Report) -> Paths | None:
    """The four files in the first folder that the user named and that has them, or None."""
    for folder in _named_folders(data_dir):
        for subfolder in SUBFOLDERS:
            place = os.path.normpath(os.path.join(folder, subfolder))
            if paths := files_in(place):
                require_all(paths, place)
                report(f"reading MNIST from {quoted(place)}")
                return paths
    return None


def require_all(paths: Paths, folder: str) -> None:
    """Raises RuntimeUserError for a folder that does not have all four files."""
    if missing := ", ".join(f"{file.name}.gz" for file in FILES if file not in paths):
        raise RuntimeUserError(
            f"{quoted(folder)} has only a part of MNIST" if paths else f"MNIST is not in {quoted(folder)}",
            expected=f"{'also ' if paths else ''}{missing}, zipped or not",
            found=", ".join(quoted(os.path.basename(path)) for path in paths.values()) or "none of them",
        )


def files_in(folder: str) -> Paths:
    """Those of the four files that are in a folder."""
    paths = {}
    for file in FILES:
        spellings = (file.name, file.name.replace("-idx", ".idx"))
        candidates = (os.path.join(folder, name + suffix) for name in spellings for suffix in ("", ".gz"))
        path = next((path for path in candidates if os.path.exists(path) and not os.path.isdir(path)), None)
        if path is not None:
            paths[file] = path
    return paths


def _downloaded(data_dir: str | None, report: Report) -> Paths:
    """The four files in the cache, after a download of those that are missing."""
    cache = cache_folder()
    paths = files_in(cache)
    missing = [file for file in FILES if file not in paths]
    failures: list[str] = []
    for file in missing:
        path = os.path.join(cache, file.name + ".gz")
        if not _download(file, path, report, failures):
            places = [*_named_folders(data_dir), cache]
            raise RuntimeUserError(
                "MNIST is not on this machine and cannot be downloaded",
                expected=f"{', '.join(f'{file.name}.gz' for file in missing)}, zipped or not, in one folder",
                found=f"none in {', '.join(map(quoted, places))}; {'; '.join(failures)}",
                hint=HINT,
            )
        paths[file] = path
    return paths


def _download(file: IdxFile, path: str, report: Report, failures: list[str]) -> bool:
    """Downloads a file from the first mirror that has it. Adds errors to `failures`."""
    from runtime.datasets.download import fetch

    for mirror in MIRRORS:
        url = f"{mirror}{file.name}.gz"
        try:
            fetch(url, path, LARGEST_DOWNLOAD, lambda part: _check_download(part, file), report)
            return True
        except OSError as error:
            failures.append(f"{url}: {reason(error)}")
        except RuntimeUserError as error:
            failures.append(f"{url}: {error.message}")
    return False


def _check_download(path: str, file: IdxFile) -> None:
    """Compares a download with the published file. Raises RuntimeUserError if they differ."""
    import hashlib

    with reading(path, zlib.error) as zipped:
        header_bytes = 4 + 4 * len(file.shape)
        content = gzip.GzipFile(fileobj=zipped).read(header_bytes + int(np.prod(file.shape)) + 1)
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise RuntimeUserError(f"the downloaded file is not the published {file.name}")


def _split(paths: Paths, image_file: IdxFile, label_file: IdxFile) -> Split:
    images = read_idx(paths[image_file], image_file.shape)
    labels = read_idx(paths[label_file], label_file.shape)
    if len(images) != len(labels):
        raise RuntimeUserError(
            f"{quoted(paths[label_file])} does not belong to {quoted(paths[image_file])}",
            expected=f"{len(images):,} labels, one per image",
            found=f"{len(labels):,}",
        )
    return Split({"image": images, "label": labels})


def read_idx(path: str, largest: tuple[int, ...]) -> np.ndarray:
    """The array u8[rows, ...] in an IDX file, zipped or not. Its shape is `largest`, or has fewer rows.

    Never reads or allocates more than `largest` needs. Raises RuntimeUserError for any other content.
    """
    with reading(path, zlib.error) as file:
        stream: Readable = gzip.GzipFile(fileobj=file) if file.read(2) == GZIP_MAGIC else file
        file.seek(0)
        header, expected = stream.read(4 + 4 * len(largest)), bytes([0, 0, IDX_BYTES, len(largest)])
        magic, sizes = header[:4], header[4:]
        if magic != expected or len(sizes) != 4 * len(largest):
            raise RuntimeUserError(
                f"{quoted(path)} is not an IDX file of bytes",
                expected=f"a file that begins with {expected.hex(' ')} and {len(largest)} sizes",
                found=header.hex(" ") or "an empty file",
            )
        shape = tuple(np.frombuffer(sizes, ">u4").tolist())
        if shape[1:] != largest[1:] or not 1 <= shape[0] <= largest[0]:
            raise RuntimeUserError(
                f"the header of {quoted(path)} does not fit its name",
                expected=f"shape {list(largest)}, or fewer rows",
                found=f"shape {list(shape)}",
            )
        byte = np.dtype(np.uint8)
        values = read_values(stream, int(np.prod(shape)), byte, byte, quoted(path))
        if stream.read(1):
            raise RuntimeUserError(f"{quoted(path)} is longer than its header says", expected=f"shape {list(shape)}")
    return values.reshape(shape)
