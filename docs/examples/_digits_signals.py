"""Requests to stop: ctrl-C, and SIGTERM of a cluster's scheduler."""

from __future__ import annotations

import signal
from typing import Any


class Stop:
    """Turns the first ctrl-C or SIGTERM into a wish, which the loop grants; a second one ends it.

    Attributes:
        asked: whether one of them came.
    """

    SIGNALS = signal.SIGINT, signal.SIGTERM

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Stop:
        self._before = {number: signal.signal(number, self._ask) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: Any) -> None:
        self._restore()

    def _ask(self, *_: Any) -> None:
        self.asked = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
