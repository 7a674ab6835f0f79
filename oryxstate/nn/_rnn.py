"""Layers that run a recurrent cell over a sequence."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from oryxstate._module._fields import static
from oryxstate._tree import ArraySpec
from oryxstate.nn._layer import Layer, LayerParams
from oryxstate.nn._parts import build
from oryxstate.nn._recurrent import RecurrentCell
from oryxstate.nn._template import Template, inputs_of


class RNN(Layer):
    """Run a cell over the first axis of one sequence, from the zero carry, in `jax.lax.scan`.

    The carry is threaded inside one call; the state of the cell is neither read nor written. A
    step whose mask is False keeps the carry and repeats the previous output (zeros before the first
    step), so the last output is that of the last step made, wherever the padding is. With `reverse`
    the steps run from last to first, and each output keeps the position of its input.

    Attributes:
        cell: a recurrent cell.
        reverse: whether to run backward.
        return_sequence: whether to return all outputs, or only that of the step made last.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> rnn = nn.RNN.of(nn.GRUCell.of(8)) >> nn.RNN.of(nn.LSTMCell.of(4), return_sequence=False)
        >>> model = ox.init(rnn)(jax.random.key(0), jnp.ones((10, 3)))
        >>> model(jnp.ones((10, 3))).shape
        (4,)
    """

    cell: Any
    reverse: bool = static(default=False)
    return_sequence: bool = static(default=True)

    def _check_fields(self) -> None:
        check_cell(type(self).__name__, self.cell)

    @classmethod
    def check(cls, cell: Any, **options: Any) -> None:
        """Check that `cell` is a recurrent cell."""
        check_cell(cls.__name__, cell)

    @classmethod
    def initialize(
        cls,
        init_key: Any,
        in_spec: Any,
        cell: Any,
        *,
        reverse: bool = False,
        return_sequence: bool = True,
    ) -> LayerParams:
        """Make the cell for one step of the input.

        Args:
            init_key: a random key, for the cell.
            in_spec: `[time, ...]`, and that of the mask if there is one.
            cell: the template of a recurrent cell, or a cell.
            reverse: whether to run backward.
            return_sequence: whether to return all outputs.
        """
        step = _step_spec(cls, in_spec)
        made, _ = build(cell, init_key, step, "cell")
        options = {"reverse": reverse, "return_sequence": return_sequence}
        return LayerParams(params={"cell": made}, info=options)

    def call(self, x: Float[Array, "time ..."], mask: Bool[Array, " time"] | None = None) -> Any:
        """Return the outputs, `[time, ...]`, or the last one.

        Args:
            x: a sequence.
            mask: True where a step is made; None means everywhere.
        """
        self.check_input(jnp.ndim(x) > 0, "[time, ...]", x)
        _check_mask(self, x, mask)

        def advance(before: Any, inputs: Any) -> tuple[Any, Any]:
            x, made = inputs
            if made is not None:  # padding may be NaN, in outputs and in gradients
                x = lax.select(made, x, jnp.zeros_like(x))
            after = self.cell.step(before[0], x)
            if made is not None:
                after = jax.tree.map(lambda new, old: lax.select(made, new, old), after, before)
            return after, after[1] if self.return_sequence else None

        first = self.cell.zero_carry()
        step_spec = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
        _, out_spec = jax.eval_shape(self.cell.step, first, step_spec)
        silence = jax.tree.map(lambda spec: jnp.zeros(spec.shape, spec.dtype), out_spec)
        (_, last), ys = lax.scan(advance, (first, silence), (x, mask), reverse=self.reverse)
        return ys if self.return_sequence else last


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
        _step_spec(cls, in_spec)
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


def check_cell(layer: str, cell: Any) -> None:
    """Raise unless `cell` is a recurrent cell or the template of one.

    Raises:
        TypeError: naming the layer and what to do.
    """
    kind = cell.layer if isinstance(cell, Template) else type(cell)
    if not issubclass(kind, RecurrentCell):
        what = f"the class {cell.__name__}" if isinstance(cell, type) else repr(cell)
        raise TypeError(
            f"{layer} runs a recurrent cell, with `step` and `zero_carry`, but got {what}. Give "
            "the template of one, `GRUCell.of(...)`; other layers stand after an RNN, "
            "`RNN.of(...) >> Dense.of(...)`."
        )


def _step_spec(cls: type[Layer], in_spec: Any) -> ArraySpec:
    """Return the spec of one step of the sequence."""
    sequence, *rest = inputs_of(in_spec)
    if not isinstance(sequence, ArraySpec) or sequence.ndim == 0 or len(rest) > 1:
        raise cls.wrong_input("[time, ...], and perhaps a mask", in_spec)
    return ArraySpec(sequence.shape[1:], sequence.dtype)


def _check_mask(layer: Layer, x: Any, mask: Any) -> None:
    if mask is not None:
        fits = jnp.shape(mask) == x.shape[:1] and mask.dtype == jnp.bool_
        layer.check_input(fits, f"a mask bool[{x.shape[0]}]", mask)
