"""Calls on the stack of a root call: results, room for frames, and endless recursion."""

import struct
import sys

import jax
import jax.numpy as jnp
import pytest

import oryxstate as ox
from oryxstate._stack import in_one_chunk

CHUNK = 2**14  # bytes of CPython's `DATA_STACK_CHUNK_SIZE`


def test_it_is_a_call():
    assert in_one_chunk(lambda *args, **kwargs: (args, kwargs), 1, b=2) == ((1,), {"b": 2})
    with pytest.raises(ZeroDivisionError):
        in_one_chunk(lambda: 1 / 0)


def test_its_frame_leaves_room_for_many():
    """A chunk is doubled until the frame fits, so nearly as much is left as the frame takes."""
    taken = in_one_chunk.__code__.co_stacksize * struct.calcsize("P")
    chunk = CHUNK
    while chunk < taken:
        chunk *= 2
    assert chunk - taken > 6 * CHUNK


class Deep(ox.Module):
    """Calls itself as often as there are frames."""

    calls: jax.Array = ox.state()

    def call(self, depth):
        self.assign(calls=self.calls + 1)
        return self.below(depth)

    def below(self, depth):
        return depth if depth == 0 else self.below(depth - 1)


def test_frames_without_end_are_an_error_as_ever():
    model = Deep(jnp.array(0))
    deep = sys.getrecursionlimit() // 2
    assert model.call_and_update(deep)[0] == 0
    with pytest.raises(RecursionError):
        model(10 * sys.getrecursionlimit())
    assert model.update(deep).calls == 1
