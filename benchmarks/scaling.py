"""Growth of the time to trace with the size of a model, beside hand-written JAX."""

from __future__ import annotations

from statistics import median

import jax
import jax.numpy as jnp
from _measure import interleaved, report, traced
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
    """The time of each size beside that by hand, and how a unit grows from the second size on."""
    runs = {
        (name, size): run
        for size in sizes
        for name, run in zip(("oryxstate", "by hand"), pairs(size), strict=True)
    }
    times = interleaved(runs, rounds)
    for size in sizes:
        unit, known = (median(times["oryxstate", n]) / n for n in (size, sizes[1]))
        note = {"oryxstate": f"per unit {unit / known:.2f} of that at {sizes[1]}"}
        own = {name: times[name, size] for name in ("by hand", "oryxstate")}
        report(f"{title}: {size}", own, "by hand", note)


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

    _report("trace, forward + update, number of blocks", BLOCKS, blocks, max(3, rounds // 5))
    _report("trace, depth of nested transformations", DEPTHS, nested, rounds)
