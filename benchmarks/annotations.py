"""The cost of checking annotations, and of the check that is off."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from _measure import interleaved, report
from jaxtyping import Array, Float, Int

import oryxstate as ox


class Block(ox.Module):
    """A layer with annotations, as users write them."""

    kernel: Float[Array, "i o"] = ox.param()
    bias: Float[Array, " o"] = ox.param()
    count: Int[Array, ""] = ox.state()

    def call(self, x: Float[Array, "b i"]) -> Float[Array, "b o"]:
        self.assign(count=self.count + 1)
        return jax.nn.relu(x @ self.kernel + self.bias)


class Deep(ox.Module):
    """Blocks, one after another."""

    blocks: list[Block]

    def call(self, x: Float[Array, "b i"]) -> Float[Array, "b i"]:
        for block in self.blocks:
            x = block(x)
        return x


def run(blocks: int, rounds: int) -> None:
    """Trace time of a deep model before the check was ever on, after that, and while it is."""
    x = jnp.ones((8, 4))
    model = Deep([Block(jnp.ones((4, 4)), jnp.ones(4), jnp.array(0)) for _ in range(blocks)])

    def trace():
        # A new function each time, which JAX has not traced yet.
        return jax.jit(lambda model, x: ox.call_and_update(model, x)).trace(model, x)

    def checked():
        with ox.check_annotations():
            return trace()

    # In two parts, since what was on once cannot be made never to have been.
    never = interleaved({"off": trace, "off, once more": trace}, rounds)
    report(f"annotations: trace of {blocks} blocks, never checked", never, "off")
    after = interleaved({"off": trace, "on": checked}, rounds)
    report(f"annotations: trace of {blocks} blocks, checked before", after, "off")


if __name__ == "__main__":
    run(blocks=50, rounds=15)
