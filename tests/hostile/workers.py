"""Tries damaged files in worker processes and watches them: time, memory, files written, processes and connections.

A worker tries inputs one after the other and reports those with a forbidden outcome; if one hangs, uses too much memory
or kills the process, the next worker continues after it.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

LONGEST = 5.0  # seconds of processor time for one input
LONGEST_WAIT = 60.0  # seconds of real time: machines may be busy, but nothing may wait forever
MOST_MEMORY = 512 << 20  # resident bytes
MOST_ADDRESSES = 4 << 30  # bytes, so that a bomb does not crash the machine
INSTALLED = 256 << 20  # bytes of memory that the machine pretends to have, for arenas
BETWEEN_COLLECTIONS = 50
SHUTDOWN = 10.0
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn", "pickle.find_class")
MEMORY_DISK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # files are written by the thousand
CONNECTS = ("socket.connect", "socket.getaddrinfo", "urllib.Request")
CHANGES = ("os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.link", "os.symlink", "os.chmod", "os.truncate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Stopped(BaseException):
    """An input took too long; no handler of errors may catch this."""


@dataclass(frozen=True)
class Finding:
    """A damaged file with a forbidden outcome."""

    kind: str
    index: int
    file: str  # the name of the undamaged file
    content: bytes
    why: str


@dataclass
class Tally:
    """The outcomes of the inputs of one kind."""

    inputs: int = 0
    accepted: int = 0
    slowest: float = 0.0  # seconds of processor time
    memory: int = 0  # bytes resident at most
    findings: list[Finding] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.inputs += other.inputs
        self.accepted += other.accepted
        self.slowest, self.memory = max(self.slowest, other.slowest), max(self.memory, other.memory)
        self.findings += other.findings


class Watch:
    """An audit hook: while an input is tried, it notes files written outside of the folder, processes, and code."""

    def __init__(self, folder: Path):
        self.folder = str(folder.resolve())
        self.seen: list[str] = []
        self.on = False
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes | os.PathLike) and flags & WRITING:
                self.changes(os.fsdecode(path), event)
        elif event in CHANGES:
            for path in arguments[:2]:
                if isinstance(path, str | bytes | os.PathLike):
                    self.changes(os.fsdecode(path), event)
        elif event == "exec" and isinstance(arguments[0], CodeType):
            name = arguments[0].co_filename
            if not (name.startswith(("<nnc", "<frozen", "<__array_function__", "<string>")) or name.endswith(".py")):
                self.seen.append(f"ran {name}")
        elif event in STARTS:
            self.seen.append(f"{event} {arguments}")
        elif event in CONNECTS:
            raise OSError("there is no network here")

    def changes(self, path: str, event: str) -> None:
        full = os.path.realpath(path)
        if full not in (os.devnull, "/dev/full") and not full.startswith(self.folder + os.sep):
            self.seen.append(f"{event} {path}")


@dataclass
class Work:
    """Inputs `first` … `last - 1` of a kind and a seed."""

    kind: str
    seed: int
    first: int
    last: int


def work(task: Work, place: Path, current: Any, results: Connection) -> None:
    """The main function of a worker. `current` is the index of its current input."""
    os.environ |= {"NNC_CACHE": "off", "HOME": str(place), "XDG_CACHE_HOME": str(place / "cache-of-user")}
    for limited, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_AS, MOST_ADDRESSES)):
        with suppress(ValueError, OSError):
            resource.setrlimit(limited, (most, resource.getrlimit(limited)[1]))
    from compiler.cli import memory_limit
    from tests.hostile.kinds import KINDS
    from tests.hostile.mutations import mutated

    memory_limit.installed_memory = lambda: INSTALLED
    kind, folder = KINDS[task.kind], place / "files"
    paths = kind.make(folder)
    originals = {path: path.read_bytes() for path in paths}
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    words, others = kind.words.encode().split(), list(originals.values())
    watch = Watch(folder)
    gc.freeze()
    for index in range(task.first, task.last):
        choose = random.Random(f"{task.kind} {task.seed} {index}")
        path = choose.choice(paths)
        content = mutated(originals[path], others, words, choose)
        content = kind.reseal(content) if choose.random() < 0.5 else content
        current.value = index
        results.send(tried(task.kind, index, path, content, watch, choose))
        restore(files, path)
        if index % BETWEEN_COLLECTIONS == 0:
            gc.collect()
    results.send(None)


def restore(files: dict[Path, bytes], tried: Path) -> None:
    """Restores changed files: the one that was tried, and those next to it that a command wrote."""
    for path, content in files.items():
        if path.parent == tried.parent and path.read_bytes() != content:
            path.write_bytes(content)


def tried(name: str, index: int, path: Path, content: bytes, watch: Watch, choose: random.Random) -> Tally:
    """The outcome of one input."""
    from tests.hostile.kinds import KINDS

    path.write_bytes(content)
    tally, why = Tally(inputs=1), ""
    watch.seen.clear()
    began = time.process_time()
    watch.on = True
    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, LONGEST)
    try:
        tally.accepted = int(KINDS[name].attempt(path, choose))
    except Stopped:
        why = f"took more than {LONGEST:.0f} s\n{traceback.format_exc()}"
    except BaseException:
        why = traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        watch.on = False
    tally.slowest = time.process_time() - began
    tally.memory = most_resident()
    if tally.memory > MOST_MEMORY:
        why = why or f"took {tally.memory >> 20} MB"
    why = why or "; ".join(watch.seen)
    if why:
        tally.findings.append(Finding(name, index, path.name, content, why))
    return tally


def stop(signal_number: int, frame: FrameType | None) -> None:
    raise Stopped


def try_all(kind: str, seed: int, indices: range, jobs: int) -> Iterator[Tally]:
    """Tries inputs in `jobs` processes; yields their outcomes as they arrive."""
    ends = [indices.start + len(indices) * job // jobs for job in range(jobs + 1)]
    lanes = [Lane(Work(kind, seed, first, last)) for first, last in pairwise(ends) if first < last]
    try:
        while lanes:
            for lane in list(lanes):
                yield from lane.news()
                if lane.done:
                    lanes.remove(lane)
    finally:
        for lane in lanes:
            lane.end()


class Lane:
    """Runs one worker after the other, for a range of inputs."""

    def __init__(self, task: Work):
        self.task, self.done = task, False
        self.begin(task.first)

    def begin(self, first: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.place = Path(tempfile.mkdtemp(prefix="hostile-", dir=MEMORY_DISK))
        self.current = context.Value("q", -1)
        self.results, theirs = context.Pipe(duplex=False)
        task = Work(self.task.kind, self.task.seed, first, self.task.last)
        self.process = context.Process(target=work, args=(task, self.place, self.current, theirs))
        self.process.start()
        theirs.close()
        self.heard = time.monotonic()

    def news(self) -> Iterator[Tally]:
        """The reports of the worker; one that is silent or has died is replaced."""
        try:
            while self.results.poll(0.05):
                self.heard = time.monotonic()
                tally = self.results.recv()
                if tally is None:
                    self.done = True
                    self.end()
                    return
                yield tally
                if tally.memory > MOST_MEMORY:  # it would count against all that follow
                    yield from self.follow(None)
                    return
        except (EOFError, ConnectionError):
            yield from self.follow("the process died")
            return
        if time.monotonic() - self.heard > LONGEST_WAIT:
            yield from self.follow(f"was silent for {LONGEST_WAIT:.0f} s")

    def follow(self, why: str | None) -> Iterator[Tally]:
        """Ends the worker, and starts the next one after its current input."""
        index = self.current.value
        if index < 0:
            self.end()
            raise RuntimeError(f"no worker for {self.task.kind} can start: {why}")
        if why:
            yield Tally(1, findings=[self.lost(index, why)])
        self.end()
        if index + 1 < self.task.last:
            self.begin(index + 1)
        else:
            self.done = True

    def lost(self, index: int, why: str) -> Finding:
        """The input that a worker never finished: the newest file in its folder."""
        newest = max(self.place.joinpath("files").rglob("*"), key=lambda path: path.stat().st_mtime_ns)
        return Finding(self.task.kind, index, newest.name, newest.read_bytes(), why)

    def end(self) -> None:
        self.process.kill()
        self.process.join(SHUTDOWN)
        self.results.close()
        shutil.rmtree(self.place, ignore_errors=True)


def replay(kind: str, file: str, content: bytes, seeds: Sequence[int] = range(8)) -> None:
    """Tries one file in this process, instead of an undamaged one; errors are raised."""
    from tests.hostile.kinds import KINDS

    with tempfile.TemporaryDirectory() as folder:
        path = next(path for path in KINDS[kind].make(Path(folder)) if path.name == file)
        for seed in seeds:  # the commands are chosen at random
            originals = {each: each.read_bytes() for each in path.parent.iterdir() if each.is_file()}
            path.write_bytes(content)
            began = time.process_time()
            KINDS[kind].attempt(path, random.Random(seed))
            assert time.process_time() - began < LONGEST
            for each, whole in originals.items():
                each.write_bytes(whole)


def most_resident() -> int:
    """The peak of resident bytes of this process; `ru_maxrss` would include those of its parent."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
