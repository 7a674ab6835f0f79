"""Calls whose Python frames stay within one chunk of CPython's stack.

CPython keeps the frames of Python functions in chunks of 16 KiB, and gives one back to the system
as soon as its first frame returns. Where the frames of JAX cross the end of a chunk, each call
there maps memory anew: a trace takes up to twice as long, by how deep the caller stands. A frame
that is too large for a chunk gets one of its own size, doubled until it fits; what it calls then
stands in the rest of that: some hundred frames, as many as a nest of transformations needs.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

WORDS = 2**14 + 1  # more than 128 KiB, so the chunk has 256


def _run(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


in_one_chunk = types.FunctionType(
    _run.__code__.replace(co_stacksize=WORDS), globals(), "in_one_chunk"
)
in_one_chunk.__doc__ = "Call a function where the frames below it stand in one chunk of the stack."
