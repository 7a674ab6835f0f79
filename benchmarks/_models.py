"""The model that is measured, three times: ours, Equinox's, and by hand.

Blocks of Dense, BatchNorm and relu; the state that enters is a constant for gradients in all three.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp

import oryxstate as ox

WIDTH, EPSILON, MOMENTUM = 4, 1e-5, 0.9
constant = jax.lax.stop_gradient


def normalized(h, mean, variance, count):
    """The normalized batch, and the statistics after it."""
    batch_mean, batch_variance = h.mean(0), h.var(0)
    new = (
        MOMENTUM * mean + (1 - MOMENTUM) * batch_mean,
        MOMENTUM * variance + (1 - MOMENTUM) * batch_variance,
        count + 1,
    )
    return (h - batch_mean) / jnp.sqrt(batch_variance + EPSILON), new


class Block(ox.Module):
    """Ours."""

    kernel: jax.Array = ox.param()
    bias: jax.Array = ox.param()
    mean: jax.Array = ox.state()
    variance: jax.Array = ox.state()
    count: jax.Array = ox.state()

    def call(self, x):
        h = x @ self.kernel + self.bias
        y, (mean, variance, count) = normalized(h, self.mean, self.variance, self.count)
        self.assign(mean=mean, variance=variance, count=count)
        return jax.nn.relu(y)


class Deep(ox.Module):
    """Blocks, one after another."""

    blocks: list[Block]

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class EquinoxBlock(eqx.Module):
    """Equinox's way: an index into a `State` that is handed along."""

    kernel: jax.Array
    bias: jax.Array
    index: eqx.nn.StateIndex

    def __init__(self, arrays):
        self.kernel, self.bias = arrays["kernel"], arrays["bias"]
        self.index = eqx.nn.StateIndex((arrays["mean"], arrays["variance"], arrays["count"]))

    def __call__(self, x, state):
        h = x @ self.kernel + self.bias
        mean, variance, count = state.get(self.index)
        y, new = normalized(h, constant(mean), constant(variance), count)
        return jax.nn.relu(y), state.set(self.index, new)


class EquinoxDeep(eqx.Module):
    """Blocks, one after another."""

    blocks: list[EquinoxBlock]

    def __init__(self, arrays):
        self.blocks = [EquinoxBlock(a) for a in arrays]

    def __call__(self, x, state):
        for block in self.blocks:
            x, state = block(x, state)
        return x, state


def hand(params, state, x):
    """Hand-written: dictionaries in and out."""
    new = []
    for p, s in zip(params, state, strict=True):
        h = x @ p["kernel"] + p["bias"]
        y, (mean, variance, count) = normalized(
            h, constant(s["mean"]), constant(s["variance"]), s["count"]
        )
        new.append({"mean": mean, "variance": variance, "count": count})
        x = jax.nn.relu(y)
    return x, new


def arrays() -> dict[str, jax.Array]:
    """The arrays of one block."""
    return {
        "kernel": jnp.eye(WIDTH),
        "bias": jnp.zeros(WIDTH),
        "mean": jnp.zeros(WIDTH),
        "variance": jnp.ones(WIDTH),
        "count": jnp.array(0),
    }


def parts(blocks: int) -> tuple[list, list]:
    """Params and state of the hand-written model."""
    all_arrays = [arrays() for _ in range(blocks)]
    params = [{k: a[k] for k in ("kernel", "bias")} for a in all_arrays]
    state = [{k: a[k] for k in ("mean", "variance", "count")} for a in all_arrays]
    return params, state


def ours(blocks: int) -> Deep:
    """The model of this library."""
    return Deep([Block(**arrays()) for _ in range(blocks)])


def equinox(blocks: int):
    """Equinox's model and its state."""
    return eqx.nn.make_with_state(EquinoxDeep)([arrays() for _ in range(blocks)])
