"""The wait for saves in the background, when the program ends."""

from __future__ import annotations

import threading
import traceback
from typing import Any

UNSETTLED: set[Any] = set()  # `Checkpoints` with a save whose outcome was not yet reported
_registering = threading.Lock()
_registered = False


def await_save_of(checkpoints: Any) -> None:
    """Wait for a save before the interpreter takes away the threads that Orbax needs.

    `atexit` is too late for this; `concurrent.futures` uses the same function.
    """
    global _registered
    UNSETTLED.add(checkpoints)
    with _registering:
        if not _registered:
            threading._register_atexit(_report_unsettled)  # type: ignore[attr-defined]
            _registered = True


def _report_unsettled() -> None:
    for checkpoints in list(UNSETTLED):
        try:
            checkpoints.wait()
        except Exception:  # the program has ended, so no caller is left to raise to
            traceback.print_exc()
