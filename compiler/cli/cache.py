"""Compiled programs on disk, by the hash of what they are compiled from; a hit needs neither parser nor passes.

An entry is one text file: the SHA-256 of the rest, then JSON. Its name has two parts: a hash of the path and the flags
of a command, so that a miss can be explained by an older entry of the same command, and a hash of the contents of the
program and of the compiler. What is known only after parsing is written into the entry and compared when it is read:
the imported files, and how the data set is stored.

Files are compared by content, not by date, since some tools preserve dates: reading all of the compiler takes 3 ms.
"""

from __future__ import annotations

import builtins
import hashlib
import json
import os
import stat
import time
import types
from collections import abc
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from runtime.datasets.files import user_cache
from runtime.program import COMBINE, Executable, IndexCheck, Manifest, Settings, TensorSpec

MOST_ENTRIES = 64
LARGEST_ENTRY = 64_000_000  # bytes
LARGEST_SOURCE = 1_000_000
OLD = 3600  # seconds after which a file that a killed process left is removed
PACKAGES = ("compiler", "runtime")
SUFFIXES = (".py", ".nn", ".lark", ".cu", ".c", ".h")


@dataclass(frozen=True)
class Build:
    """A compiled program as training, evaluation and prediction need it."""

    executable: Executable
    manifest: Manifest
    text: str  # the resolved program
    data: str  # the name of its data set
    warnings: tuple[str, ...] = ()  # as they are printed


@dataclass(frozen=True)
class CacheEntry:
    """A build with what it depends on besides its key."""

    build: Build
    files: Mapping[str, str]  # path -> hash, of the program itself and of the files it imports
    storage: Mapping[str, Sequence[Any]] | None  # dtype and scale by array of the data set it is compiled for

    @classmethod
    def from_json(cls, values: Any) -> CacheEntry:
        """Raises KeyError, TypeError or ValueError for anything but what `json_of` gives."""
        build, manifest = values["build"], values["build"]["manifest"]
        specs = {
            name: tuple(TensorSpec(**{**spec, "shape": tuple(spec["shape"])}) for spec in manifest[name])
            for name in ("inputs", "targets", "outputs", "variables")
        }
        rest = {
            "metrics": tuple(manifest["metrics"]),
            "chosen_scales": tuple(manifest["chosen_scales"]),
            "settings": Settings(**manifest["settings"]),
            "checks": {name: IndexCheck(**check) for name, check in manifest["checks"].items()},
        }
        whole = Manifest(**{**manifest, **specs, **rest})
        build = Build(
            executable_from(build["executable"]), whole, build["text"], build["data"], tuple(build["warnings"])
        )
        entry = cls(build, dict(values["files"]), values["storage"])
        if not conforms(entry, cls) or not set(whole.totals.values()) <= COMBINE.keys():
            raise ValueError("it has other contents")
        return entry


def executable_from(values: Mapping[str, Any]) -> Executable:
    """The inverse of `asdict`."""
    inner = values["initializer"]
    outer = {**values, "passes": tuple(values["passes"])}
    return Executable(**{**outer, "initializer": inner and executable_from(inner)})


def conforms(value: Any, hint: Any) -> bool:
    """Whether a value from JSON has the declared type of a field; numbers must not be negative."""
    arguments = get_args(hint)
    match get_origin(hint) or hint:
        case types.UnionType:
            return any(conforms(value, each) for each in arguments)
        case builtins.tuple:
            return isinstance(value, tuple) and all(conforms(each, arguments[0]) for each in value)
        case abc.Mapping:
            return isinstance(value, dict) and all(conforms(each, arguments[1]) for each in value.values())
        case abc.Sequence:
            return isinstance(value, list)
        case kind if is_dataclass(kind):
            hints = get_type_hints(kind)
            return type(value) is kind and all(conforms(getattr(value, name), hints[name]) for name in hints)
    return type(value) is hint and not (hint is int and value < 0)


@dataclass(frozen=True)
class Key:
    """What a program is compiled from, as far as this is known before it is parsed."""

    path: str
    choices: tuple[Any, ...]  # the flags that matter
    program: str  # hash of the contents
    compiler: str

    @classmethod
    def of(cls, path: str | Path, choices: Sequence[Any]) -> Key | None:
        """None for a file that cannot be read: compiling it will report why."""
        program = hash_of_file(path)
        return cls(str(path), tuple(choices), program, compiler_hash()) if program else None

    @property
    def command(self) -> str:
        return short_hash([self.path, self.choices])

    @property
    def name(self) -> str:
        return f"{self.command}-{short_hash([self.program, self.compiler])}"


class Cache:
    """The entries in a folder; None switches the cache off."""

    def __init__(self, folder: Path | None):
        self.folder = folder

    @classmethod
    def of_user(cls) -> Cache:
        """$NNC_CACHE, a folder or `off`; else $XDG_CACHE_HOME/nnc/programs, or ~/.cache/nnc/programs."""
        chosen = os.environ.get("NNC_CACHE", "")
        if chosen:
            return cls(None if chosen == "off" else Path(chosen))
        return cls(Path(user_cache("programs")))

    def load(self, key: Key | None) -> tuple[CacheEntry | None, str]:
        """The entry of a key, and `hit KEY` or `miss, WHY`."""
        if self.folder is None or key is None:
            return None, "off" if self.folder is None else "miss, the model file cannot be read"
        path = self.folder / f"{key.name}.json"
        if not os.path.exists(path):
            return None, f"miss, {self.why_not(key)}"
        try:
            entry = CacheEntry.from_json(read_entry(path)["entry"])
        except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            return None, f"miss, damaged entry: {error}"
        changed = [name for name, known in entry.files.items() if hash_of_file(name) != known]
        if changed:
            return None, f"miss, {changed[0]} changed"
        with suppress(OSError):
            os.utime(path)  # the oldest entries are removed
        return entry, f"hit {key.name}"

    def why_not(self, key: Key) -> str:
        """What changed since the newest entry of the same command."""
        for path in self.entries(f"{key.command}-*.json"):
            try:
                known = read_entry(path)
                changes = {"the model file": known["program"] != key.program}
                changes["the compiler"] = known["compiler"] != key.compiler
            except (OSError, KeyError, TypeError, ValueError, RecursionError):
                continue
            return f"{' and '.join(what for what, changed in changes.items() if changed)} changed"
        return "no entry"

    def store(self, key: Key | None, entry: CacheEntry) -> None:
        """Writes an entry atomically and removes the oldest; ignores a full or read-only disk."""
        if self.folder is None or key is None or entry.files.get(key.path) != key.program:
            return
        values = {"program": key.program, "compiler": key.compiler, "entry": asdict(entry)}
        text = json.dumps(values, allow_nan=False)
        if len(text) >= LARGEST_ENTRY:
            return
        path, temporary = self.folder / f"{key.name}.json", self.folder / f".{key.name}.{os.getpid()}.tmp"
        with suppress(OSError):
            self.folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.folder.mkdir(exist_ok=True, mode=0o700)
            temporary.write_text(f"{digest(text)}\n{text}", "utf-8")
            os.replace(temporary, path)
            self.tidy()

    def tidy(self) -> None:
        """Removes the oldest entries, and files that killed processes left."""
        left = [path for path in self.entries(".*.tmp") if path.stat().st_mtime < time.time() - OLD]
        for path in [*self.entries("*.json")[MOST_ENTRIES:], *left]:
            path.unlink(missing_ok=True)

    def entries(self, pattern: str) -> list[Path]:
        """The newest first."""
        assert self.folder is not None
        found = []
        for path in self.folder.glob(pattern):
            with suppress(OSError):  # other processes remove entries, too
                found.append((path.stat().st_mtime_ns, path))
        return [path for _, path in sorted(found, reverse=True)]


def read_entry(path: Path) -> dict[str, Any]:
    """The JSON of an entry; raises OSError or ValueError if it is incomplete or belongs to another user."""
    status, content = read_file(path, LARGEST_ENTRY)
    if hasattr(os, "getuid") and status.st_uid != os.getuid():
        raise ValueError("it belongs to another user")
    known, _, text = content.decode("utf-8").partition("\n")
    if digest(text) != known:
        raise ValueError("its hash is wrong")
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("it has other contents")
    return values


def read_file(path: str | Path, largest: int) -> tuple[os.stat_result, bytes]:
    """Raises OSError or ValueError for a file that is not regular, or too large."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > largest:
            raise ValueError("it is not a regular file, or too large")
        return status, file.read(largest)


# Hashes ---------------------------------------------------------------------------------------------------------------


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def short_hash(values: Sequence[Any]) -> str:
    return digest(json.dumps(values))[:16]


def hash_of_file(path: str | Path) -> str | None:
    """SHA-256 of a source file, or None if it cannot be read."""
    try:
        return hashlib.sha256(read_file(path, LARGEST_SOURCE)[1]).hexdigest()
    except (OSError, ValueError):
        return None


def compiler_hash() -> str:
    """SHA-256 of everything that a compiled program depends on: compiler, standard library and runtime."""
    result = hashlib.sha256()
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    for package in PACKAGES:
        for folder, folders, files in os.walk(os.path.join(root, package)):
            folders.sort()
            for name in sorted(name for name in files if name.endswith(SUFFIXES)):
                path = os.path.join(folder, name)
                with open(path, "rb") as file:
                    result.update(f"{os.path.relpath(path, root)}\0".encode() + file.read())
    return result.hexdigest()
