"""More modules with one fault each: those that the library refuses, and the rest of the laws."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from broken import ONE, Broken, Retraces, X, unseen
from jaxtyping import Array, Float, Int

import oryxstate as ox


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


@unseen(lambda self, x: (x, self.replace(count=jnp.asarray(1.0))))
class ChangesWeakType(ox.Module):
    """Returns what JAX takes for a Python number."""

    count: Float[Array, ""] = ox.state()


class DropsUpdateOfSmall(ox.Module):
    """Has an `update` of its own, which forgets small inputs."""

    total: Float[Array, ""] = ox.state()

    def call(self, x):
        self.assign(total=self.total + x.sum())
        return x


def _update(self, x):
    grown = self.total + x.sum()
    return self.replace(total=jax.lax.select(jnp.abs(x).max() > 10, grown, self.total))


DropsUpdateOfSmall.update = _update  # written in the class it would be refused


class DropsUpdateOfStranger(ox.Module):
    """Calls in a branch a module that is not a part of it, which the library refuses."""

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


class WrongOutput(ox.Module):
    """Returns another axis than it says."""

    kernel: Float[Array, "inputs outputs"]

    def call(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return x @ self.kernel


class HoldsWrongOutput(ox.Module):
    """Only a layer in it says what is not so."""

    layers: list[WrongOutput]

    def call(self, x):
        return self.layers[0](x)


class ChangesStructure(ox.Module):
    """Assigns a longer list, which the library refuses."""

    seen: list[Array] = ox.state()

    def call(self, x):
        self.assign(seen=[*self.seen, x])
        return x


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


@jax.custom_vjp
def _smoothed(total, x):
    return 0.5 * total + x


_smoothed.defvjp(lambda total, x: (0.5 * total + x, None), lambda _, g: (jnp.zeros_like(g), g))


class ForgetsDerivativeOfState(ox.Module):
    """Has a derivative of its own, right for one call, which says nothing of the call before."""

    scale: Float[Array, ""]
    total: Float[Array, " n"] = ox.state()

    def call(self, x):
        self.assign(total=_smoothed(self.total, self.scale * x))
        return self.total


class Cancels(ox.Module):
    """Subtracts large numbers."""

    scale: Float[Array, ""]

    def call(self, x):
        large = jax.lax.stop_gradient(1e6 * self.scale)  # whose gradients would cancel too
        return (x + large) - large


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


def _shared() -> tuple[Any, ...]:
    return Twins(ONE, ONE), X


def _set_behind() -> tuple[Any, ...]:
    module = Retraces(1)
    vars(module)["step"] = X
    return module, X


BROKEN = {
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
        "annotations_hold",
        r'the output of `WrongOutput.call` is annotated Float\[Array, "n"\], but got float32\[2\], '
        r"with inputs=3, outputs=2, n=3",
    ),
    "wrong annotation of the output of a layer inside": Broken(
        lambda: (HoldsWrongOutput([WrongOutput(jnp.ones((3, 2)))]), X),
        "annotations_hold",
        r"the output of `WrongOutput.call` at 'layers\[0\]' is annotated",
    ),
    "a static field set from outside": Broken(
        _set_behind, "pytree_round_trip", r"the static field `step` is 1, but was .*1\., 2\., 4\."
    ),
    "branches in Python": Broken(
        lambda: (BranchesInPython(ONE), X),
        "jit_is_eager",
        r"TracerBoolConversionError.*broken_more.py, line",
    ),
    "wrong gradient": Broken(
        lambda: (WrongGradient(ONE), X), "gradient_is_difference", r"along a random direction"
    ),
    "forgets the derivative of state": Broken(
        lambda: (ForgetsDerivativeOfState(ONE, X), X),
        "gradient_across_calls",
        r"over 2 calls, along a random direction the output changes by .* `lax.stop_gradient`",
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
        lambda: (Rejects(ONE), X),
        "runs",
        r"ValueError: only positive inputs \(broken_more.py, line",
    ),
}
