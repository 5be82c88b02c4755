"""Whether others could change what is in a folder. C in it runs with the rights of the user, so nobody else may."""

from __future__ import annotations

import os
import stat
from pathlib import Path

OTHERS = stat.S_IWGRP | stat.S_IWOTH


def not_private(folder: Path) -> str:
    """Why others could put files into a folder, or replace it; empty if they cannot."""
    if not hasattr(os, "getuid"):
        return ""
    for path, sticky in ((folder, 0), (folder.parent, stat.S_ISVTX)):
        try:
            status = path.stat()
        except OSError as error:
            return error.strerror or str(error)
        if not stat.S_ISDIR(status.st_mode):
            return "it is not a folder"
        of_folder = path == folder
        if status.st_uid != os.getuid() and (of_folder or status.st_uid != 0):
            return f"{'it' if of_folder else 'the folder around it'} belongs to another user"
        if status.st_mode & OTHERS and not status.st_mode & sticky:
            return f"others can write to {'it' if of_folder else 'the folder around it'}"
    return ""
