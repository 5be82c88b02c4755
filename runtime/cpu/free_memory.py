"""Main memory: what this process has, and what it can still get, as far as the system reports it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

PROC, GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
# Limit and use of a control group: in version 2, and in version 1, which has a folder for each controller.
FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))


def free(proc: Path = PROC, groups: Path = GROUPS) -> int | None:
    """Bytes that can be allocated without swapping: on the machine, or in a control group of this process if less.

    If the system does not report it, all memory of the machine, or None.
    """
    most = [_available(proc), *_left_in_groups(proc, groups)]
    return min((size for size in most if size is not None), default=None)


def resident(proc: Path = PROC) -> int:
    """Bytes of main memory that this process has now; 0 if the system does not report it."""
    try:
        return int((proc / "self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, IndexError, OSError):
        return 0


def installed() -> int | None:
    """Bytes of main memory that the machine has; None if the system does not report it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _available(proc: Path) -> int | None:
    found = re.search(r"^MemAvailable:\s*(\d+) kB", _text(proc / "meminfo"), re.MULTILINE)
    return int(found[1]) * 1024 if found else installed()


def _left_in_groups(proc: Path, groups: Path) -> Iterator[int]:
    """Bytes that the control groups of this process have left, with their cache of files, which can be freed."""
    for folder in _folders(proc, groups):
        for limit_file, use_file in FILES:
            limit, use = _text(folder / limit_file).strip(), _text(folder / use_file).strip()
            if limit.isdecimal() and use.isdecimal():
                cached = re.search(r"^(?:total_)?inactive_file (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
                yield max(0, int(limit) - int(use) + (int(cached[1]) if cached else 0))


def _folders(proc: Path, groups: Path) -> Iterator[Path]:
    """The folders of the groups and of their parents. In a container, paths may start above the visible root."""
    for line in _text(proc / "self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        root = groups / "memory" if controllers else groups
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            yield folder
            if folder == root:
                break


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
