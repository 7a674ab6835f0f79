"""The layer that runs two recurrent cells over a sequence, one in each direction."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from oryxstate.nn._layer import Layer, LayerParams
from oryxstate.nn._parts import build
from oryxstate.nn._rnn import RNN, check_cell, step_spec
from oryxstate.nn._template import Template


class Bidirectional(Layer):
    """Run two cells over one sequence, one forward and one backward.

    The outputs are concatenated: at each time that of the forward cell, which has seen the past,
    and that of the backward cell, which has seen the future. Source: Schuster and Paliwal,
    Bidirectional Recurrent Neural Networks, 1997.

    Attributes:
        forward: the `RNN` of the first cell.
        backward: the reversed `RNN` of the second cell, with its own parameters.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> template = nn.Bidirectional.of(nn.GRUCell.of(8))
        >>> template.spec(jnp.ones((10, 3)))
        float32[10,16]
    """

    forward: Any
    backward: Any

    @classmethod
    def check(cls, cell: Any) -> None:
        """Check that `cell` is the template of a recurrent cell."""
        check_cell(cls.__name__, cell)
        if not isinstance(cell, Template):
            raise TypeError(
                f"Bidirectional makes two cells, but got one that is made, {type(cell).__name__}. "
                f"Give its template, `{type(cell).__name__}.of(...)`."
            )

    @classmethod
    def initialize(cls, init_key: Any, in_spec: Any, cell: Any) -> LayerParams:
        """Make both cells, each with its own key.

        Args:
            init_key: a random key.
            in_spec: `[time, ...]`, and that of the mask if there is one.
            cell: the template of a recurrent cell.
        """
        step_spec(cls, in_spec)
        keys = jax.random.split(init_key)
        forward, _ = build(RNN.of(cell), keys[0], in_spec, "forward")
        backward, _ = build(RNN.of(cell, reverse=True), keys[1], in_spec, "backward")
        return LayerParams(params={"forward": forward, "backward": backward})

    def call(
        self, x: Float[Array, "time ..."], mask: Bool[Array, " time"] | None = None
    ) -> Float[Array, "time ..."]:
        """Concatenate the outputs of both along the last axis.

        Args:
            x: a sequence.
            mask: True where a step is made, as in `RNN`; None means everywhere.
        """
        return jnp.concatenate([self.forward(x, mask), self.backward(x, mask)], axis=-1)
