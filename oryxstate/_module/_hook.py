"""The hook through which a package above this one observes modules.

At first nobody does. A call then costs one look-up of an attribute more, and no Python frame:
`operator.call` is written in C.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

made: Callable[..., None] | None = None
"""Called as `made(module)` with a new module that is not sealed yet, and as `made(module, changed,
of)` with a copy of the module `of` in which the fields `changed` are new."""

run: Callable[..., Any] = operator.call
"""Runs the code of an author: `run(written, module, *args, **kwargs)`."""


def observe(
    on_made: Callable[..., None] | None = None, on_run: Callable[..., Any] = operator.call
) -> None:
    """Set `made` and `run`, for all threads; without arguments nobody observes any more."""
    global made, run
    made, run = on_made, on_run
