"""How long each phase of a command takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Timings:
    """Seconds by phase, in order."""

    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, start: float) -> float:
        """Adds the time since `start` to a phase; returns the time now."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0) + now - start
        return now

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, start)
