"""What do layers cost while a model is traced?"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from _measure import interleaved, report
from jax import lax

import oryxstate as ox
from oryxstate import nn

WIDTH, BATCH, MOMENTUM, EPSILON = 16, 8, 0.99, 1e-5


def _by_hand(params, state, x):
    new = []
    for (kernel, bias, scale, shift), (mean, variance) in zip(params, state, strict=True):
        h = x @ kernel + bias[None]
        mu = h.mean(0)
        var = jnp.square(h - mu[None]).mean(0)
        y = (h - mu[None]) * lax.rsqrt(var + EPSILON)[None] * scale[None] + shift[None]
        mu, var = lax.stop_gradient((mu, var))
        mean = MOMENTUM * lax.stop_gradient(mean) + (1 - MOMENTUM) * mu
        variance = MOMENTUM * lax.stop_gradient(variance) + (1 - MOMENTUM) * var
        new.append((mean, variance))
        x = jax.nn.relu(y)
    return x, new


def _hand_step(params, state, x):
    def loss(params):
        y, new = _by_hand(params, state, x)
        return (y**2).sum(), new

    return jax.value_and_grad(loss, has_aux=True)(params)


def _ours_step(model, xs):
    def loss(model):
        ys, model = jax.vmap(lambda x: model.call_and_update(x, training=True), out_axes=(0, None))(
            xs
        )
        return (ys**2).sum(), model

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
    steps = {"by hand": (_hand_step, (params, state, xs)), "layers": (_ours_step, (model, xs))}

    def traced(step, args):
        return lambda: jax.jit(lambda *a: step(*a)).trace(*args)

    medians = interleaved({name: traced(*step) for name, step in steps.items()}, rounds)
    equations = {
        name: f"{len(jax.make_jaxpr(step)(*args).eqns)} equations"
        for name, (step, args) in steps.items()
    }
    title = f"trace: {blocks} times Dense, BatchNorm, relu, forward + gradient + update"
    report(title, medians, "by hand", equations)
