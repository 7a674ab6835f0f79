"""Modules with one fault each: twelve that a module can have, and the law that each breaks.

What the library refuses by itself is written so that it cannot see it: `unseen` gives a class its
own `call_and_update` when it is made, of which the library checks nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

import oryxstate as ox


def unseen(rule):
    """Give a class a `call_and_update` that is taken as it is."""

    def call(self, x):
        return self.call_and_update(x)[0]

    def decorate(cls):
        cls.call_and_update, cls.call, cls.__call__ = rule, call, call
        cls.update = lambda self, x: self.call_and_update(x)[1]
        return cls

    return decorate


class MutatesInPlace(ox.Module):
    """Adds up in a NumPy buffer."""

    seen: np.ndarray = ox.param()

    def call(self, x):
        self.seen[0] += 1.0
        return x


@unseen(lambda self, x: (x, self.replace(count=self.count.astype(jnp.float32))))
class ChangesDtypeUnseen(ox.Module):
    """Returns a float for an integer."""

    count: Int[Array, ""] = ox.state()


class DropsUpdateWhenTraced(ox.Module):
    """Forgets its update in the branch for tracers."""

    count: Int[Array, ""] = ox.state()

    def call_and_update(self, x):
        if isinstance(x, jax.core.Tracer):
            return x, self
        return x, self.replace(count=self.count + 1)


KEPT: list[Any] = []


class LeaksTracer(ox.Module):
    """Keeps an intermediate in a list."""

    scale: Float[Array, ""]

    def call(self, x):
        KEPT.append(self.scale * x)
        return KEPT[-1]


NUMBERS = itertools.count()


class DependsOnGlobalState(ox.Module):
    """Counts in Python."""

    scale: Float[Array, ""]

    def call(self, x):
        return self.scale * x + float(next(NUMBERS))


class InfiniteGradient(ox.Module):
    """Divides by a norm."""

    scale: Float[Array, ""]

    def call(self, x):
        return self.scale * jnp.sqrt(jnp.sum(x**2))


class RandomByOrder(ox.Module):
    """Draws from NumPy's global generator."""

    scale: Float[Array, ""]

    def call(self, x):
        return self.scale * x + float(np.random.normal())


class WrongField(ox.Module):
    """Its kernel is transposed."""

    kernel: Float[Array, "inputs outputs"]
    bias: Float[Array, " outputs"]

    def call(self, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        return self.kernel @ x + self.bias


@dataclasses.dataclass(frozen=True)
class Table:
    """Hashable, since it is compared by name."""

    name: str
    values: Array = dataclasses.field(compare=False)


class StaticArray(ox.Module):
    """Hides an array among its configuration."""

    table: Table = ox.static()

    def call(self, x):
        return x + self.table.values


@unseen(lambda self, x: (x, self.replace(seen=[*self.seen, x])))
class ChangesStructureUnseen(ox.Module):
    """Returns a longer list."""

    seen: list[Array] = ox.state()


ADDERS: dict[type, Callable] = {}


class ReadsStaleState(ox.Module):
    """Caches a function that has the first total it saw."""

    total: Float[Array, ""] = ox.state()

    def call_and_update(self, x):
        add = ADDERS.setdefault(type(self), functools.partial(jnp.add, self.total))
        return add(x), self.replace(total=self.total + 1.0)


@unseen(lambda self, x: (x, self.replace(step=self.step + 1)))
class Retraces(ox.Module):
    """Counts in a static field."""

    step: int = ox.static(default=0)


class Broken(NamedTuple):
    """A broken module.

    Attributes:
        make: gives the module and its arguments.
        law: the only one that fails.
        words: that the message must hold, a regular expression.
    """

    make: Callable[[], tuple[Any, ...]]
    law: str
    words: str


X = jnp.array([1.0, 2.0, 4.0])


ONE = jnp.float32(1)


BROKEN = {
    "mutates in place": Broken(
        lambda: (MutatesInPlace(np.zeros(2, np.float32)), X),
        "purity",
        r"`seen` of the module is \[.\., 0\.\] after the call, but \[.\., 0\.\] before",
    ),
    "changes a dtype": Broken(
        lambda: (ChangesDtypeUnseen(jnp.int32(0)), X),
        "stable_types",
        r"`count` of the updated module is float32\[\] after the call, but int32\[\] before",
    ),
    "drops an update in a branch": Broken(
        lambda: (DropsUpdateWhenTraced(jnp.int32(0)), X),
        "jit_is_eager",
        r"`count` of the updated module is 0 under `jax.jit`, but 1 without",
    ),
    "leaks a tracer": Broken(
        lambda: (LeaksTracer(ONE), X),
        "purity",
        r"a tracer outlives the call: `broken.KEPT` refers to it",
    ),
    "depends on global state": Broken(
        lambda: (DependsOnGlobalState(ONE), X),
        "reproducible",
        r"the output is \[.*\] at the second call, but \[.*\] at the first",
    ),
    "infinite gradient at 0": Broken(
        lambda: (InfiniteGradient(ONE), jnp.zeros(3)),
        "finite_gradient",
        r"`\[0\]` in the gradient of the arguments is not finite: \[nan nan nan\]",
    ),
    "random by order": Broken(
        lambda: (RandomByOrder(ONE), X), "rng_order", r"draw from `random` and `numpy.random`"
    ),
    "wrong annotation": Broken(
        lambda: (WrongField(jnp.ones((2, 3)), jnp.zeros(2)), X),
        "annotations_hold",
        r'field `bias` of WrongField is annotated Float\[Array, "outputs"\], but got '
        r"float32\[2\], with inputs=2, outputs=3",
    ),
    "static array": Broken(
        lambda: (StaticArray(Table("ones", jnp.ones(3))), X),
        "no_static_array",
        r"`table.values` is an array in a static field",
    ),
    "changes structure": Broken(
        lambda: (ChangesStructureUnseen([X]), X),
        "stable_types",
        r"`seen\[1\]` of the updated module is there after the call, but missing before",
    ),
    "reads stale state": Broken(
        lambda: (ReadsStaleState(ONE), X),
        "no_stale_state",
        r"read an array of the module before the update.*deleted.*broken.py, line",
    ),
    "retraces each call": Broken(
        lambda: (Retraces(), X),
        "no_retrace",
        r"traced again, since the static field `step` is 1, but was 0",
    ),
}
