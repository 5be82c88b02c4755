"""The user's folder for compiled libraries. They are machine code, so nobody else may write there."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

from runtime.datasets.files import user_cache
from runtime.errors import RuntimeUserError, quoted
from runtime.native.privacy import not_private

WITHOUT = "without --native it runs on NumPy"


def library_folder() -> Path:
    """$NNC_CACHE/native, else `native` next to the program cache; a folder of this process if NNC_CACHE is `off`.

    Raises RuntimeUserError if it cannot be made, or if others may write to it.
    """
    chosen = os.environ.get("NNC_CACHE", "")
    if chosen == "off":
        return temporary_folder()
    folder = Path(chosen, "native") if chosen else Path(user_cache("native"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        raise cannot_write(folder, error) from None
    if reason := not_private(folder):
        raise RuntimeUserError(
            f"compiled programs are not kept in {quoted(str(folder))}: {reason}",
            expected="a folder that belongs to you and that nobody else can write to",
            found=reason,
            hint=f"chmod go-w {quoted(str(folder.parent))} and that folder, or set NNC_CACHE to another; {WITHOUT}",
        )
    return folder


def cannot_write(folder: Path, error: OSError) -> RuntimeUserError:
    """The error for a folder that cannot be written to: a full disk, a read-only file system, no permission."""
    return RuntimeUserError(
        f"cannot keep compiled programs in {quoted(str(folder))}",
        expected="a folder with free space that can be written to",
        found=error.strerror or str(error),
        hint=f"free some space, or set NNC_CACHE to another folder; {WITHOUT}",
    )


@cache
def temporary_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="nnc-")  # with mode 0700
    owner = os.getpid()
    atexit.register(lambda: os.getpid() == owner and shutil.rmtree(folder, ignore_errors=True))
    return Path(folder)
