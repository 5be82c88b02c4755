"""How long each phase of a command takes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar


class Named(Protocol):
    @property
    def name(self) -> str: ...


StageType = TypeVar("StageType", bound=Named)


@dataclass
class Timings:
    """Seconds by phase, in order."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0) + time.perf_counter() - start

    def of_stages(self, stages: Iterable[StageType], phases: Mapping[str, str]) -> Iterator[StageType]:
        """The stages, with the time of each added to its phase; what `phases` does not name belongs to the next."""
        waiting, start = 0.0, time.perf_counter()
        for stage in stages:
            waiting += time.perf_counter() - start
            if stage.name in phases:
                phase = phases[stage.name]
                self.seconds[phase] = self.seconds.get(phase, 0) + waiting
                waiting = 0.0
            yield stage
            start = time.perf_counter()
