"""Growth of the time to trace with the size of a model, beside hand-written JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from _measure import interleaved, traced
from _models import WIDTH, hand, ours, parts
from jax import lax

import oryxstate as ox

BLOCKS = 10, 100, 1000
DEPTHS = 1, 10, 20, 30


class Accumulate(ox.Module):
    """Reads and writes."""

    total: jax.Array = ox.state()

    def call(self, x):
        self.assign(total=self.total + jnp.sin(x))
        return x * self.total


class Nested(ox.Module):
    """A call inside as many transformations as `depth` says."""

    inner: Accumulate
    depth: int = ox.static()

    def call(self, x):
        run = self.inner
        for level in range(self.depth):
            run = _within(level, run)
        return run(x)


def _within(level, run):
    transformed = [
        jax.jit(lambda x: run(x)),
        lambda x: lax.scan(lambda c, _: (run(c), None), x, None, length=2)[0],
        lambda x: lax.cond(x > 0, run, lambda x: x, x),
        jax.checkpoint(lambda x: run(x)),
        lambda x: lax.while_loop(lambda c: c < 1, run, x),
    ]
    return transformed[level % len(transformed)]


def _hand_nested(depth, total, x):
    def run(total, x):
        total = total + jnp.sin(x)
        return total, x * total

    for level in range(depth):
        run = _hand_within(level, run)
    return run(total, x)


def _hand_within(level, run):
    transformed = [
        jax.jit(lambda t, x: run(t, x)),
        lambda t, x: lax.scan(lambda c, _: (run(*c), None), (t, x), None, length=2)[0],
        lambda t, x: lax.cond(x > 0, run, lambda t, x: (t, x), t, x),
        jax.checkpoint(lambda t, x: run(t, x)),
        lambda t, x: lax.while_loop(lambda c: c[1] < 1, lambda c: run(*c), (t, x)),
    ]
    return transformed[level % len(transformed)]


def _report(title, sizes, pairs, rounds):
    """Milliseconds for each size, and what a unit costs compared with one of the first size."""
    runs = {
        (name, size): run
        for size in sizes
        for name, run in zip(("ours", "hand"), pairs(size), strict=True)
    }
    times = interleaved(runs, rounds)
    print(f"\n{title}")
    for size in sizes:
        ours_s, hand_s = times["ours", size], times["hand", size]
        per_unit = [
            times[name, size] / size / (times[name, sizes[1]] / sizes[1])
            for name in ("ours", "hand")
        ]
        print(
            f"  {size:<6}{ours_s * 1e3:10.1f} ms  {ours_s / hand_s:6.2f}x by hand; per unit "
            f"{per_unit[0]:.2f} of that at {sizes[1]} (by hand {per_unit[1]:.2f})"
        )


def run(rounds: int) -> None:
    """Blocks one after another, and a call in transformations in one another."""
    x, one = jnp.ones((8, WIDTH)), jnp.float32(0.5)

    def blocks(count):
        params, state = parts(count)
        return traced(ox.call_and_update, (ours(count), x)), traced(hand, (params, state, x))

    def nested(depth):
        model = Nested(Accumulate(one), depth)
        return (
            traced(ox.call_and_update, (model, one)),
            traced(lambda t, x: _hand_nested(depth, t, x), (one, one)),
        )

    _report(
        "trace: blocks one after another, forward + update", BLOCKS, blocks, max(3, rounds // 5)
    )
    _report("trace: nested jit, scan, cond, checkpoint, while", DEPTHS, nested, rounds)
