"""The first value that is not finite is found where it comes up (S16)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import oryxstate as ox
from oryxstate import nn

KEY = jax.random.key(0)
XS = jax.random.normal(KEY, (8, 3))
LAYERS = [nn.Dense.of(3), nn.LayerNorm.of(), nn.Dense.of(3) >> nn.PReLU.of(), nn.BatchNorm.of()]


def drawn(seed):
    """A model of drawn layers, and the path of a stacked or single parameter that is poisoned."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(rng.integers(2, 5)):
        part = LAYERS[rng.integers(len(LAYERS))]
        wrap = rng.integers(4)
        if wrap == 1:
            part = nn.Residual.of(part)
        if wrap == 2:
            part = nn.Repeat.of(part, 3)
        parts.append(part)
    model = ox.init(nn.Serial.of(*parts))(KEY, XS[0])
    learned = ox.named_leaves(ox.partition(model)[0])
    path = list(learned)[rng.integers(len(learned))]
    stacked = path.split(".")[1] == "layers"  # of a Repeat
    return model, path, int(rng.integers(3)) if stacked else None


def poisoned(model, path, layer):
    paths, (leaves, treedef) = list(ox.named_leaves(model)), jax.tree.flatten(model)
    at = paths.index(path)
    bad = jnp.full_like(leaves[at], jnp.nan)
    leaves[at] = bad if layer is None else leaves[at].at[layer].set(bad[layer])
    return jax.tree.unflatten(treedef, leaves)


@pytest.mark.parametrize("seed", range(50))
def test_the_planted_fault_is_found(seed):
    model, path, layer = drawn(seed)
    call = partial(ox.batch_call, training=True)
    if seed % 5 == 0:
        call = jax.jit(call)
    assert ox.find_nonfinite(call, model, XS) is None
    found = ox.find_nonfinite(call, poisoned(model, path, layer), XS)
    assert (found.path, found.kind) == (path.rsplit(".", 1)[0], "output")
    assert found.iteration == (() if layer is None else (layer,))


class Root(ox.Module):
    def call(self, x):
        return jnp.sqrt(x)


class Scaled(ox.Module):
    root: Root
    scale: jax.Array

    def call(self, x):
        return self.root(self.scale * x)


def test_a_gradient_that_is_not_finite():
    model = Scaled(Root(), jnp.float32(0))
    assert ox.find_nonfinite(ox.call, model, 1.0) is None
    for function in (model, lambda x: ox.grad(ox.call)(model, x)):
        found = ox.find_nonfinite(function, jnp.float32(1))
        assert found == ox.Nonfinite("root", "gradient")
    assert str(found) == "gradient of 'root' is not finite"


def test_a_gradient_in_forward_mode():
    step = partial(jax.jvp, Scaled(Root(), jnp.float32(0)), (1.0,), (1.0,))
    assert ox.find_nonfinite(step) == ox.Nonfinite("[1]", "result")


def test_an_input_is_not_blamed_on_the_module():
    class Divides(ox.Module):
        root: Root

        def call(self, x):
            return self.root(jnp.divide(x, 0.0))

    model = Divides(Root())
    found = ox.find_nonfinite(model, 1.0)
    assert (found.path, found.kind) == ("root", "input")
    assert ox.find_nonfinite(model, jnp.nan) == ox.Nonfinite("", "input")
    assert str(ox.Nonfinite("", "input")) == "input of the model is not finite"


def test_order_inside_a_loop():
    """A later module in an early iteration comes before an earlier one in a late iteration."""

    class Loop(ox.Module):
        a: Root
        b: Root
        reverse: bool = ox.static()

        def call(self, x):
            def body(h, i):
                u = self.a(jnp.where(i == 3, -1.0, 1.0))
                v = self.b(jnp.where(i == 1, -1.0, 1.0))
                return h + u + v, None

            return lax.scan(body, x, jnp.arange(5), reverse=self.reverse)[0]

    found = ox.find_nonfinite(ox.call, Loop(Root(), Root(), False), 0.0)
    assert found == ox.Nonfinite("b", "output", (1,))
    found = ox.find_nonfinite(ox.call, Loop(Root(), Root(), True), 0.0)
    assert found == ox.Nonfinite("a", "output", (3,))


def test_a_branch_that_is_not_taken_is_not_looked_at():
    class Branch(ox.Module):
        root: Root

        def call(self, x):
            return lax.cond(x > 0, self.root, lambda x: self.root(-x), x)

    assert ox.find_nonfinite(jax.jit(ox.call), Branch(Root()), -1.0) is None


def test_a_training_step():
    model = ox.init(nn.Dense.of(4) >> nn.Lambda.of(jnp.log) >> nn.Dense.of(1))(KEY, XS[0])

    @jax.jit
    def step(model, xs):
        return ox.grad(lambda m: ox.batch_call(m, xs).mean())(model)

    found = ox.find_nonfinite(step, model, XS)
    assert (found.path, found.kind, found.example) == ("layers[1]", "output", (0,))


def test_it_wants_values():
    with pytest.raises(TypeError, match="looks at values, which there are none of"):
        jax.jit(lambda x: ox.find_nonfinite(Root(), x))(1.0)
    with pytest.raises(TypeError, match=r"`ox.find_nonfinite` takes a module or a function"):
        ox.find_nonfinite(1.0)
