"""Modules with one fault each, and good ones that look like them.

What the library refuses by itself is written so that it cannot see it: a `Hidden` class brings its
own `call_and_update`, of which the library checks nothing.
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


class Hidden:
    """A base that is no module, so that what its subclasses write is taken as it is."""

    def call(self, x):
        return self.call_and_update(x)[0]

    __call__ = call


class MutatesInPlace(ox.Module):
    """Adds up in a NumPy buffer."""

    seen: np.ndarray = ox.param()

    def call(self, x):
        self.seen[0] += 1.0
        return x


class MutatesItsInput(ox.Module):
    """Takes an entry out of its argument."""

    scale: Array

    def call(self, batch):
        return self.scale * batch.pop("x")


class ChangesDtype(ox.Module):
    """Assigns a float to an integer, which the library refuses."""

    count: Int[Array, ""] = ox.state()

    def call(self, x):
        self.assign(count=self.count.astype(jnp.float32) + 0.5)
        return x


class _ChangesDtype(Hidden):
    def call_and_update(self, x):
        return x, self.replace(count=self.count.astype(jnp.float32))


class ChangesDtypeUnseen(_ChangesDtype, ox.Module):
    """Returns a float for an integer."""

    count: Int[Array, ""] = ox.state()


class _ChangesWeakType(Hidden):
    def call_and_update(self, x):
        return x, self.replace(count=jnp.asarray(1.0))


class ChangesWeakType(_ChangesWeakType, ox.Module):
    """Returns what JAX takes for a Python number."""

    count: Float[Array, ""] = ox.state()


class DropsUpdateWhenTraced(ox.Module):
    """Forgets its update in the branch for tracers."""

    count: Int[Array, ""] = ox.state()

    def call_and_update(self, x):
        if isinstance(x, jax.core.Tracer):
            return x, self
        return x, self.replace(count=self.count + 1)


class DropsUpdateOfSmall(ox.Module):
    """Has an `update` of its own, which forgets small inputs."""

    total: Float[Array, ""] = ox.state()

    def call(self, x):
        self.assign(total=self.total + x.sum())
        return x

    def update(self, x):
        grown = self.total + x.sum()
        return self.replace(total=jax.lax.select(jnp.abs(x).max() > 10, grown, self.total))


COUNTER = None


class DropsUpdateOfStranger(ox.Module):
    """Calls in a branch a module that is no part of it, which the library refuses."""

    scale: Float[Array, ""]

    def call(self, x):
        return jax.lax.cond(x.sum() > 0, COUNTER, lambda x: x, self.scale * x)


class Count(ox.Module):
    """Counts its calls."""

    count: Int[Array, ""] = ox.state()

    def call(self, x):
        self.assign(count=self.count + 1)
        return x


COUNTER = Count(jnp.int32(0))
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


class WrongOutput(ox.Module):
    """Returns another axis than it says."""

    kernel: Float[Array, "inputs outputs"]

    def call(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return x @ self.kernel


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


class ChangesStructure(ox.Module):
    """Assigns a longer list, which the library refuses."""

    seen: list[Array] = ox.state()

    def call(self, x):
        self.assign(seen=[*self.seen, x])
        return x


class _ChangesStructure(Hidden):
    def call_and_update(self, x):
        return x, self.replace(seen=[*self.seen, x])


class ChangesStructureUnseen(_ChangesStructure, ox.Module):
    """Returns a longer list."""

    seen: list[Array] = ox.state()


ADDERS: dict[type, Callable] = {}


class ReadsStaleState(ox.Module):
    """Caches a function that has the first total it saw."""

    total: Float[Array, ""] = ox.state()

    def call_and_update(self, x):
        add = ADDERS.setdefault(type(self), functools.partial(jnp.add, self.total))
        return add(x), self.replace(total=self.total + 1.0)


class _Retraces(Hidden):
    def call_and_update(self, x):
        return x, self.replace(step=self.step + 1)


class Retraces(_Retraces, ox.Module):
    """Counts in a static field."""

    step: int = ox.static(default=0)


class RetracesRefused(ox.Module):
    """Counts in a static field, which the library refuses."""

    step: int = ox.static(default=0)

    def call_and_update(self, x):
        return x, self.replace(step=self.step + 1)


class BranchesInPython(ox.Module):
    """Asks for a value that a tracer does not have."""

    scale: Float[Array, ""]

    def call(self, x):
        return self.scale * x if x.sum() > 0 else x


@jax.custom_vjp
def _twice(x):
    return 2 * x


_twice.defvjp(lambda x: (2 * x, None), lambda _, g: (3 * g,))


class WrongGradient(ox.Module):
    """Has a derivative of its own, and a wrong one."""

    scale: Float[Array, ""]

    def call(self, x):
        return self.scale * _twice(x)


class Cancels(ox.Module):
    """Subtracts large numbers."""

    scale: Float[Array, ""]

    def call(self, x):
        return (x + 1e6 * self.scale) - 1e6 * self.scale


@jax.custom_batching.custom_vmap
def _centred(x):
    return x


@_centred.def_vmap
def _(size, mapped, xs):
    return xs - xs.mean(0, keepdims=True), True


class MixesExamples(ox.Module):
    """Sees the mean of the batch."""

    scale: Float[Array, ""]

    def call(self, x):
        return _centred(self.scale * x)


class ConvertsTwice(ox.Module):
    """Its converter changes what it has converted."""

    scale: Array = ox.param(converter=lambda x: 2 * jnp.asarray(x))

    def call(self, x):
        return self.scale * x


class Config:
    """Configuration that equals nothing but itself."""


class ComparedByIdentity(ox.Module):
    """Its configuration is another one when it is read back."""

    config: Config = ox.static()

    def call(self, x):
        return x


class Twins(ox.Module):
    """Two fields."""

    left: Float[Array, ""]
    right: Float[Array, ""]

    def call(self, x):
        return self.left * x + self.right


class Rejects(ox.Module):
    """Takes no such input."""

    scale: Float[Array, ""]

    def call(self, x):
        raise ValueError("only positive inputs")


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


def _shared() -> tuple[Any, ...]:
    return Twins(ONE, ONE), X


def _set_behind() -> tuple[Any, ...]:
    module = Retraces(1)
    vars(module)["step"] = X
    return module, X


BROKEN = {
    # The twelve faults.
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
        lambda: (LeaksTracer(ONE), X), "purity", r"a tracer outlives the call.*KEPT"
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
        "annotations",
        r"field `bias` is annotated Float\[Array, 'outputs'\], but is float32\[2\], after field "
        r"`kernel`.*float32\[2,3\]",
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
    # The same faults in other clothes, and other faults.
    "mutates its input": Broken(
        lambda: (MutatesItsInput(ONE), {"x": X}),
        "purity",
        r"`\[0\]\['x'\]` of the arguments is mis",
    ),
    "changes a dtype, refused": Broken(
        lambda: (ChangesDtype(jnp.int32(0)), X),
        "stable_types",
        r"ValueError: state 'count' of ChangesDtype was given dtype float32, but it has dtype",
    ),
    "changes a weak type": Broken(
        lambda: (ChangesWeakType(ONE), X), "stable_types", r"float32\[\], weakly typed after the"
    ),
    "changes structure, refused": Broken(
        lambda: (ChangesStructure([X]), X), "stable_types", r"structure of state cannot change"
    ),
    "retraces each call, refused": Broken(
        lambda: (RetracesRefused(), X), "stable_types", r"new module of the same structure"
    ),
    "drops an update in `update`": Broken(
        lambda: (DropsUpdateOfSmall(ONE), X),
        "call_is_part",
        r"`total` of the updated module is 1\. of `call` and `update`, but 8\. of `call_and",
    ),
    "drops an update of a stranger": Broken(
        lambda: (DropsUpdateOfStranger(ONE), X), "runs", r"EffectError.*update would be lost"
    ),
    "wrong annotation of the output": Broken(
        lambda: (WrongOutput(jnp.ones((3, 2))), X),
        "annotations",
        r"the output is annotated Float\[Array, 'n'\], but is float32\[2\], after argument `x`",
    ),
    "a static field set from outside": Broken(
        _set_behind, "pytree_round_trip", r"the static field `step` is 1, but was .*1\., 2\., 4\."
    ),
    "branches in Python": Broken(
        lambda: (BranchesInPython(ONE), X),
        "jit_is_eager",
        r"TracerBoolConversionError.*broken.py, line",
    ),
    "wrong gradient": Broken(
        lambda: (WrongGradient(ONE), X), "gradient_is_difference", r"along a random direction"
    ),
    "cancels": Broken(
        lambda: (Cancels(ONE), X / 7),
        "float64_agreement",
        r"the output is 0\.2857.* in float64, but 0\.3125",
    ),
    "mixes examples": Broken(
        lambda: (MixesExamples(ONE), X), "vmap_is_loop", r"the output is .* under `jax.vmap`, but"
    ),
    "converts twice": Broken(
        lambda: (ConvertsTwice(ONE), X), "update_round_trip", r"`scale` .* 4\. put .*`replace`"
    ),
    "compared by identity": Broken(
        lambda: (ComparedByIdentity(Config()), X), "serialization_round_trip", r"field `config` is"
    ),
    "shared buffer": Broken(
        _shared, "donation_safe", r"`left` and `right` share one buffer.*`jnp.copy`"
    ),
    "rejects its input": Broken(
        lambda: (Rejects(ONE), X), "runs", r"ValueError: only positive inputs \(broken.py, line"
    ),
}
