"""Between tests/bench/gpu.py and a peer: a process that keeps compiled steps and measures one on request.

    {"prepare": "cnn"}     {"columns": {"eager": "", "graph": ""}, "versions": {"torch": "2.11.0"}}
    {"measure": "graph"}   {"microseconds": 123.4}

One line of JSON each way. The value of a column is its error, if any; an error of the whole request is {"error": …}.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

BATCH = 128
STEPS = 208  # per measurement: 13 CUDA graphs of 16 steps
Measure = Callable[[], float]  # microseconds per step, the mean of STEPS steps
Columns = Mapping[str, Callable[[], Measure]]  # by name, a function that compiles a step and makes it ready


# The peer's side ------------------------------------------------------------------------------------------------------


def serve(columns: Callable[[str], Columns], versions: Mapping[str, str]) -> None:
    """Answers requests until there are no more; `columns` returns those of a model."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to stderr
    ready: dict[str, Measure] = {}
    for line in sys.stdin:
        json.dump(answer(json.loads(line), columns, versions, ready), answers)
        answers.write("\n")
        answers.flush()


def answer(
    request: Mapping[str, str],
    columns: Callable[[str], Columns],
    versions: Mapping[str, str],
    ready: dict[str, Measure],
) -> dict[str, Any]:
    try:
        if "measure" in request:
            return {"microseconds": ready[request["measure"]]()}
        ready.clear()
        wrong = {name: make_ready(name, make, ready) for name, make in columns(request["prepare"]).items()}
        return {"columns": wrong, "versions": dict(versions)}
    except Exception as error:  # whatever a framework raises: the others are still to be measured
        return {"error": first_line(error)}


def make_ready(name: str, make: Callable[[], Measure], ready: dict[str, Measure]) -> str:
    """Compiles a column and runs it once; returns its error, or "" if there is none."""
    try:
        measure = make()
        measure()
        ready[name] = measure
        return ""
    except Exception as error:
        return first_line(error)


def first_line(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]


# The client's side ----------------------------------------------------------------------------------------------------


class PeerError(Exception):
    """A peer crashed, does not answer, or reports an error."""


class Session:
    """A peer's process, started when it is needed; its standard error goes to a file."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path):
        self.command, self.log, self.environment, self.folder = command, log, environment, folder
        self.process: subprocess.Popen[str] | None = None
        self.lines: queue.Queue[str] = queue.Queue()

    def ask(self, request: Mapping[str, str], seconds: float) -> dict[str, Any]:
        """The answer; raises PeerError, and ends the process, if none comes in time."""
        deadline = monotonic() + seconds
        process = self.started()
        assert process.stdin
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            answer = json.loads(self.lines.get(timeout=max(deadline - monotonic(), 0.01)) or "null")
        except (OSError, queue.Empty, ValueError) as error:
            slow = isinstance(error, queue.Empty)
            self.end()
            raise PeerError(f"no answer within {seconds:.0f} s" if slow else self.last_words()) from None
        if answer is None:
            self.end()
            raise PeerError(self.last_words())
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def started(self) -> subprocess.Popen[str]:
        """The process, a new one if there is none."""
        if self.process is None:
            with self.log.open("w") as log:
                self.process = subprocess.Popen(
                    self.command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    cwd=self.folder,
                    env=dict(self.environment),
                    start_new_session=True,
                )
            self.lines = queue.Queue()
            threading.Thread(target=pass_lines, args=(self.process, self.lines), daemon=True).start()
        return self.process

    def last_words(self) -> str:
        """The last line that it wrote to its log."""
        lines = self.log.read_text(errors="replace").split("\n") if self.log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "it ended without output")[:200]

    def end(self) -> None:
        if self.process is not None:
            end_group(self.process)
            self.process = None


def pass_lines(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    """Passes on the lines of a process; at its end, an empty line."""
    assert process.stdout
    for line in process.stdout:
        lines.put(line)
    lines.put("")


def end_group(process: subprocess.Popen[str]) -> None:
    """Kills a process that leads its own session, and all processes that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            with suppress(OSError):
                stream.close()
