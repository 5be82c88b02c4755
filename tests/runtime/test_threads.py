"""Threads that share work, in a forked process."""

from __future__ import annotations

import os
import time

import pytest

from runtime.cpu.threads import together

PATIENCE = 20.0  # seconds


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_starts_new_threads():
    """It would wait forever for those of its parent."""
    results: list[int] = []
    together(lambda: results.append(1), lambda: results.append(2))
    child = os.fork()
    if child == 0:
        together(lambda: results.append(3), lambda: results.append(4))
        os._exit(0 if sorted(results) == [1, 2, 3, 4] else 1)
    end = time.monotonic() + PATIENCE
    while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < end:
        time.sleep(0.01)
    if not ended[0]:
        os.kill(child, 9)
    assert ended == (child, 0)
