"""Layers and parts of a chain by position."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hosts import both, close

import oryxstate as ox
from oryxstate import nn

KEY, X = jax.random.key(0), jnp.array([0.5, -1.0, 2.0])


class Count(nn.Layer):
    """Counts its calls, and adds the count."""

    n: jax.Array = ox.state()

    @classmethod
    def initialize(cls, init_key, in_spec):
        return nn.LayerParams(state={"n": jnp.zeros((), jnp.float32)})

    def call(self, x):
        self.assign(n=self.n + 1)
        return x + self.n


CHAIN = nn.Dense.of(4) >> Count.of() >> nn.Dense.of(3) >> Count.of()


def test_a_chain_is_a_sequence_of_its_layers():
    chain = CHAIN.init(KEY, X)
    assert len(chain) == 4 and [*chain] == list(chain.layers)
    assert chain[0] is chain.layers[0] and chain[-1] is chain.layers[3]
    assert chain[np.int64(1)] is chain.layers[1]
    for part in (slice(2), slice(1, None), slice(None, None, -1), slice(4, 9)):
        assert type(chain[part]) is nn.Serial and chain[part].layers == chain.layers[part]
    close(chain[2:](chain[:2](X)), chain(X))
    assert chain[:0] and chain[:0](X) is X, "a model is true, an empty chain the identity"
    assert nn.Serial((), name="empty")[:].name is None


def test_parts_of_a_chain_inside_a_call_are_those_of_the_model():
    class Net(ox.Module):
        chain: nn.Serial

        def call(self, x):
            hidden = self.chain[:2](x)
            y = self.chain[2:](hidden)
            again = jax.lax.scan(lambda c, _: (self.chain[3](c), None), y, length=2)[0]
            return hidden, again, sum(type(layer) is Count for layer in self.chain)

    model = Net(CHAIN.init(KEY, X))
    hidden = model.chain[0](X) + 1
    want = hidden, model.chain[2](hidden) + 1 + 2 + 3
    for run in both(ox.call_and_update):
        (*got, counts), new = run(model, X)
        close(got, want)
        assert counts == 2 and [float(new.chain[i].n) for i in (1, 3)] == [1, 3]


def test_what_is_not_there():
    chain = CHAIN.init(KEY, X)
    with pytest.raises(IndexError, match="layer 4 of a Serial of 4: Dense, Count, Dense, Count"):
        chain[4]
    with pytest.raises(IndexError, match="layer 0 of a Serial of 0: it is empty"):
        chain[:0][0]
    for index in ("dense", None, 1.0):
        with pytest.raises(TypeError, match=r"`chain\[0\]` or `chain\[1:\]`, got"):
            chain[index]
