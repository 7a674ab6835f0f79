"""The derivative of `custom_root` at state that its solve changed is refused, not wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import oryxstate as ox


class Leak(ox.Module):
    """A residual that depends on what it wrote."""

    total: jax.Array = ox.state()

    def call(self, x):
        self.assign(total=self.total + 0.1 * x)
        return 0.1 * self.total


class Root(ox.Module):
    leak: Leak

    def call(self, p):
        def residual(x):
            return 2 * x - p + self.leak(x)

        def solve(f, x):
            return x - f(x) / 2

        return lax.custom_root(residual, jnp.zeros(()), solve, lambda g, y: y / g(1.0))


MODEL = Root(Leak(jnp.array(0.3)))


@pytest.mark.parametrize(
    "gradient",
    [jax.grad(MODEL), jax.jit(jax.grad(MODEL)), jax.grad(jax.jit(MODEL))],
    ids=["eager", "jit of grad", "grad of jit"],
)
def test_refused(gradient):
    before = MODEL(1.0)
    with pytest.raises(ox.EffectError) as error:
        gradient(1.0)
    assert "state 'leak.total' is read and written inside `lax.custom_root`" in str(error.value)
    assert isinstance(jnp.ones(2) + 1, jax.Array)
    np.testing.assert_allclose(MODEL(1.0), before)
