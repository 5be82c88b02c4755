"""Stopping on SIGINT and SIGTERM: after the current batch, or at once after a second signal."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A signal stopped the training; the process should exit with 128 + `signal`. `str()` is the message for users."""

    def __init__(self, number: int, saved: str = ""):
        super().__init__(f"stopped by {signal.Signals(number).name}{saved}")
        self.signal = number


class Signals:
    """Handles SIGINT and SIGTERM: the first is added to the list that `with` gives, the second raises Interrupted."""

    def __init__(self) -> None:
        self._received: list[int] = []
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> list[int]:
        if threading.current_thread() is threading.main_thread():  # only there can handlers be set
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as it is in background jobs of a shell
                    self._previous[number] = signal.signal(number, self._note)
        return self._received

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._received:
            raise Interrupted(number)
        self._received.append(number)

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
