"""Stopping on SIGINT and SIGTERM: after the batch at hand, or at once when asked twice."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A signal stopped the training; the process should exit with 128 + `signal`. `str()` says so to the user."""

    def __init__(self, number: int, saved: str = ""):
        super().__init__(f"stopped by {signal.Signals(number).name}{saved}")
        self.signal = number


class Signals:
    """While entered, the first SIGINT or SIGTERM goes to the list it gives; a second one raises Interrupted at once."""

    def __init__(self) -> None:
        self._received: list[int] = []
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> list[int]:
        if threading.current_thread() is threading.main_thread():  # nowhere else can handlers be set
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as it is in the background of a shell script
                    self._previous[number] = signal.signal(number, self._note)
        return self._received

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._received:
            raise Interrupted(number)
        self._received.append(number)

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
