"""The pool of threads: every part runs once, barriers hold, forks and several callers work, and idle threads sleep."""

from __future__ import annotations

import ctypes
import os
import random
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import tests.native.compiler_or_skip  # noqa: F401
from runtime.native import library, threads
from runtime.native.compilers import HEADERS
from tests.native.graphs import NUMBERS, adding, expected_sum

HERE = Path(__file__).parent


def check(parts: int, calls: int = 20, seed: int | None = None) -> None:
    graph, arena, numbers = adding()
    draw = random.Random(seed)
    sums = 0
    for before in range(calls):
        graph(arena, NUMBERS)
        sums += expected_sum(3 * before)
        if seed is not None:
            time.sleep(draw.choice([0, 0, 1e-5, 5e-4, 3e-3]))
    assert (numbers[:NUMBERS] == 3 * calls).all()
    assert numbers[NUMBERS : NUMBERS + parts].tolist() == [sums] * parts
    assert not numbers[NUMBERS + parts :].any()


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_every_part_runs_once(parts: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NNC_THREADS", str(parts))
    check(parts)


def test_threads_that_slept_wake_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NNC_THREADS", "3")
    check(3, calls=200, seed=5)


def test_the_number_of_threads_may_change(monkeypatch: pytest.MonkeyPatch):
    for parts in (5, 2, 4, 1, 5):
        monkeypatch.setenv("NNC_THREADS", str(parts))
        check(parts, calls=50)


def test_after_a_fork(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NNC_THREADS", "3")
    check(3)
    child = os.fork()
    if child == 0:
        try:
            check(3)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    check(3)


def test_two_threads_of_python_call(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NNC_THREADS", "2")
    finished = []
    callers = [threading.Thread(target=lambda: finished.append(check(2, calls=300))) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert len(finished) == 2


def test_idle_threads_sleep(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NNC_THREADS", "4")
    check(4)
    time.sleep(0.05)
    begun = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - begun < 0.01


def test_more_threads_than_the_pool_has():
    arguments = [None, None, ctypes.c_long(1), None, ctypes.c_long(0)]
    assert library.pool()(*arguments, ctypes.c_int(threads.MOST + 1)) != 0
    assert library.pool()(*arguments, ctypes.c_int(0)) != 0


def test_signals_are_left_to_the_main_thread():
    """Threads of the pool block all signals."""
    graph, arena, _ = adding()
    graph(arena, NUMBERS)
    masks = []
    for status in Path("/proc/self/task").glob("*/status"):
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        masks.append(int(lines["SigBlk"], 16))
    assert any(mask & 0b10 for mask in masks) == (threads.threads() > 1)  # SIGINT is signal 2
    assert not all(mask & 0b10 for mask in masks)


def test_workspaces_are_aligned_and_shared():
    small, large = library.workspaces(100), library.workspaces(10_000)
    assert large.ctypes.data % 64 == 0
    assert len(large) >= 10_000 and len(small) >= 100
    assert np.shares_memory(library.workspaces(200), large)


def test_the_thread_sanitizer_finds_nothing(tmp_path: Path):
    program = tmp_path / "stress"
    compiler = library.find_compiler()[0]
    command = [*compiler.command, "-std=gnu11", "-O1", "-g", "-fsanitize=thread", f"-I{HEADERS}"]
    built = subprocess.run([*command, str(HERE / "pool_stress.c"), "-o", str(program), "-lpthread"], check=False)
    if built.returncode:
        pytest.skip("the compiler has no sanitizer of threads")
    result = subprocess.run([str(program)], capture_output=True, text=True, timeout=300, check=False)
    if "unexpected memory mapping" in result.stderr:
        pytest.skip("the sanitizer does not work on this kernel")
    assert (result.stdout, result.stderr, result.returncode) == ("done\n", "", 0)
