"""The hooks through which packages above this one take part in calls.

Two are for whoever checks modules: `made` and `run`; `around` is for whoever captures what they
return. At first nobody does. A call then costs two look-ups of an attribute more, and no Python
frame: `operator.call` is written in C. `run_batched` is for layers that define `call_batched`.
`views` shows modules.
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

around: Callable[..., Any] = operator.call
"""Runs a call of a module: `around(run, module, *args, **kwargs)`."""

run_batched: Callable[..., Any]
"""Calls a live layer that defines `call_batched`: `run_batched(written, layer, args, kwargs)`."""

views: Any
"""Returns what `repr` shows of a module, `views.text(module)`, and what treescope shows of it,
`views.draw(module, path, subtree)`."""


def observe(
    on_made: Callable[..., None] | None = None, on_run: Callable[..., Any] = operator.call
) -> None:
    """Set `made` and `run`, for all threads; without arguments nobody observes any more."""
    global made, run
    made, run = on_made, on_run


def surround(by: Callable[..., Any] = operator.call) -> None:
    """Set `around`, for all threads; without an argument nobody captures any more."""
    global around
    around = by


def runs_batched(function: Callable[..., Any]) -> Callable[..., Any]:
    """Set `run_batched`, as a decorator."""
    global run_batched
    run_batched = function
    return function


def shown_by(by: Any) -> None:
    """Set `views`."""
    global views
    views = by
