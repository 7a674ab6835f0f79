"""The cost of layers while a model is traced."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from _measure import report_traces
from jax import lax

import oryxstate as ox
from oryxstate import nn

WIDTH, BATCH, MOMENTUM, EPSILON = 16, 8, 0.99, 1e-5


def _batch(params, state, xs):
    """By hand, for a whole batch."""
    new = []
    for (kernel, bias, scale, shift), old in zip(params, state, strict=True):
        h = xs @ kernel + bias[None]
        mean = h.mean(0)
        centered = h - mean[None]
        variance = jnp.square(centered).mean(0)
        factor = lax.rsqrt(variance + EPSILON) * scale
        xs = jax.nn.relu(centered * factor[None] + shift[None])
        new.append(_mixed(old, (mean, variance)))
    return xs, new


def _example(params, state, x):
    """By hand, for one example of a `vmap` with a name."""
    new = []
    for (kernel, bias, scale, shift), old in zip(params, state, strict=True):
        h = x @ kernel + bias
        mean = lax.pmean(h, "batch")
        centered = h - mean
        variance = lax.pmean(jnp.square(centered), "batch")
        factor = lax.rsqrt(variance + EPSILON) * scale
        x = jax.nn.relu(centered * factor + shift)
        new.append(_mixed(old, (mean, variance)))
    return x, new


def _mixed(old, new):
    return [
        MOMENTUM * lax.stop_gradient(a) + (1 - MOMENTUM) * lax.stop_gradient(b)
        for a, b in zip(old, new, strict=True)
    ]


def _examples(params, state, xs):
    run = jax.vmap(_example, (None, None, 0), (0, None), axis_name="batch")
    return run(params, state, xs)


def _hand_step(forward, params, state, xs):
    def loss(params):
        ys, new = forward(params, state, xs)
        return (ys**2).sum(), new

    return jax.value_and_grad(loss, has_aux=True)(params)


def _our_step(model, xs):
    def loss(model):
        run = jax.vmap(lambda x: model.call_and_update(x, training=True), out_axes=(0, None))
        ys, new = run(xs)
        return (ys**2).sum(), new

    return ox.value_and_grad(loss, has_aux=True)(model)


def run(blocks: int, rounds: int) -> None:
    """Forward, gradient and update of `blocks` times Dense, BatchNorm, relu."""
    block = nn.Dense.of(WIDTH) >> nn.BatchNorm.of() >> jax.nn.relu
    template = nn.Serial.of(*(part for _ in range(blocks) for part in block.args))
    xs = jnp.ones((BATCH, WIDTH))
    model = ox.init(template)(jax.random.key(0), xs[0])
    dense, norms = model.layers[::3], model.layers[1::3]
    params = [(d.kernel, d.bias, n.scale, n.bias) for d, n in zip(dense, norms, strict=True)]
    state = [(n.mean, n.variance) for n in norms]
    steps = {
        "by hand, a batch": (lambda *a: _hand_step(_batch, *a), (params, state, xs)),
        "by hand, an example": (lambda *a: _hand_step(_examples, *a), (params, state, xs)),
        "layers": (_our_step, (model, xs)),
    }
    title = f"trace: {blocks} times Dense, BatchNorm, relu, forward + gradient + update"
    report_traces(title, steps, "by hand, a batch", rounds)
