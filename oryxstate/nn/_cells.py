"""Recurrent cells: simple RNN, GRU and LSTM."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from oryxstate._module._fields import param
from oryxstate.nn._precision import computing
from oryxstate.nn._recurrent import Gated


class SimpleRNNCell(Gated):
    """`h' = tanh(x @ kernel + h @ recurrent_kernel + bias)`; the output is `h'`.

    As in Flax and Keras. PyTorch's `RNNCell` has a second bias, which can be added to this one.
    Source: Elman, Finding Structure in Time, 1990.

    Attributes:
        carry: the hidden state `h`, `[features]`, of the dtype of the parameters, float32 at least.
        kernel: `[in, features]`.
        recurrent_kernel: `[features, features]`.
        bias: `[features]`.
        dtype: the dtype to compute in; that of input and parameters together if None.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> cell = ox.init(nn.SimpleRNNCell.of(2))(jax.random.key(0), jnp.ones(3))
        >>> carry, y = cell.step(cell.zero_carry(), jnp.ones(3))
        >>> y, cell = cell.call_and_update(jnp.ones(3))
        >>> bool(jnp.all(carry == cell.carry))
        True
    """

    gates = 1

    def step(
        self, carry: Float[Array, " features"], x: Float[Array, " in"]
    ) -> tuple[Float[Array, " features"], Float[Array, " features"]]:
        """Return the next hidden state, as carry and, in the dtype of computation, as output."""
        (inputs,), (recurrent,) = self._sums(carry, x)
        hidden = jnp.tanh(inputs + recurrent)
        return hidden.astype(carry.dtype), hidden


class GRUCell(Gated):
    """A gated recurrent unit, with the gates reset, update and new, in this order.

        r  = sigmoid(x @ kernel_r + bias_r + h @ recurrent_r)
        z  = sigmoid(x @ kernel_z + bias_z + h @ recurrent_z)
        n  = tanh(x @ kernel_n + bias_n + r * (h @ recurrent_n + recurrent_bias))
        h' = (1 - z) * n + z * h

    As in Flax, Equinox and PyTorch, the reset gate acts after the recurrent product, and `z` is the
    weight of the old state. (In the paper it acts before, and the weight is `1 - z`.) PyTorch's
    `GRUCell` has second biases of `r` and `z`, which can be added to the first.
    Source: Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, 2014.

    Attributes:
        carry: the hidden state `h`, `[features]`, of the dtype of the parameters, float32 at least.
        kernel: `[in, 3 * features]`, the gates side by side.
        recurrent_kernel: `[features, 3 * features]`.
        bias: `[3 * features]`.
        recurrent_bias: `[features]`.
        dtype: the dtype to compute the gates in; that of input and parameters together if None.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> cell = ox.init(nn.GRUCell.of(2))(jax.random.key(0), jnp.ones(3))
        >>> for x in jnp.ones((5, 3)):
        ...     y, cell = cell.call_and_update(x)
        >>> bool(jnp.all(y == cell.carry))
        True
    """

    recurrent_bias: Float[Array, " features"] = param(axes=("hidden",), kw_only=True)

    gates = 3

    @classmethod
    def _more(cls, bias_init: Any, features: int) -> dict[str, Any]:
        return {"recurrent_bias": bias_init((features,))}

    def step(
        self, carry: Float[Array, " features"], x: Float[Array, " in"]
    ) -> tuple[Float[Array, " features"], Float[Array, " features"]]:
        """Return the next hidden state, as carry and, in the dtype of computation, as output."""
        (reset, update, new), (to_reset, to_update, to_new) = self._sums(carry, x)
        (bias,) = computing(new.dtype, self.recurrent_bias)
        # In 16 bits a gate near 1 is 1, so the gates have the dtype of the carry.
        sums = reset + to_reset, update + to_update, new, to_new + bias
        r, z, n, recurrent = (x.astype(carry.dtype) for x in sums)
        r, z = jax.nn.sigmoid(r), jax.nn.sigmoid(z)
        hidden = (1 - z) * jnp.tanh(n + r * recurrent) + z * carry
        return hidden, hidden.astype(new.dtype)


class LSTMCell(Gated):
    """A long short-term memory, with the gates input, forget, cell and output, in this order.

        i, f, o = sigmoid(x @ kernel_ifo + h @ recurrent_ifo + bias_ifo)
        g       = tanh(x @ kernel_g + h @ recurrent_g + bias_g)
        c'      = f * c + i * g
        h'      = o * tanh(c')

    The output is `h'`. The carry is `(h, c)` as in Equinox and PyTorch (Flax has `(c, h)`); the
    order of the gates is that of all three, and nothing is added to the bias of the forget gate.
    PyTorch's `LSTMCell` has second biases, which can be added to these. Source: Hochreiter and
    Schmidhuber, Long Short-Term Memory, 1997, with the forget gate of Gers et al., 2000.

    Attributes:
        carry: hidden state and cell, `([features], [features])`, of the dtype of the parameters,
            float32 at least.
        kernel: `[in, 4 * features]`, the gates side by side.
        recurrent_kernel: `[features, 4 * features]`.
        bias: `[4 * features]`.
        dtype: the dtype to compute the gates in; that of input and parameters together if None.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> cell = ox.init(nn.LSTMCell.of(2))(jax.random.key(0), jnp.ones(3))
        >>> (hidden, memory), y = cell.step(cell.zero_carry(), jnp.ones(3))
        >>> hidden.shape, memory.shape, bool(jnp.all(y == hidden))
        ((2,), (2,), True)
    """

    gates = 4

    @classmethod
    def _zeros(cls, features: int, dtype: Any) -> Any:
        return jnp.zeros(features, dtype), jnp.zeros(features, dtype)

    def step(self, carry: tuple[jax.Array, jax.Array], x: Float[Array, " in"]) -> tuple[Any, Any]:
        """Return the next `(hidden, cell)`, and `hidden` in the dtype of computation."""
        hidden, cell = carry
        sums = [a + b for a, b in zip(*self._sums(hidden, x), strict=True)]
        # The cell accumulates over many steps, in the dtype of the carry.
        i, f, g, o = (gate.astype(cell.dtype) for gate in sums)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
        return (hidden, cell), hidden.astype(sums[0].dtype)
