"""The layer that runs a recurrent cell over a sequence."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from oryxstate import _explicit, _tree
from oryxstate._module import _live
from oryxstate._module._fields import static
from oryxstate._tree import ArraySpec, make_array_spec
from oryxstate.nn._layer import Layer, LayerParams
from oryxstate.nn._parts import build
from oryxstate.nn._recurrent import RecurrentCell
from oryxstate.nn._template import Template, inputs_of


class RNN(Layer):
    """Run a cell over the first axis of one sequence, in `jax.lax.scan`.

    A call starts from the zero carry, and neither reads nor writes the state of the cell; `unroll`
    takes the initial carry and returns the final one. With `stateful`, consecutive calls are
    consecutive chunks of one sequence: a call starts from the carry that the last call left in the
    cell. To stream a batch, give each example its own carry: `ox.per_example(model, size)`.

    `reset` marks the steps that start a new sequence, which sees nothing of the steps before it. It
    is a keyword of the call that reaches every RNN below, so that a stack of them is reset at once.

    A step whose mask is False keeps the carry and repeats the previous output (zeros before the
    first step that a call makes in a sequence), so the last output is that of the last step made,
    wherever the padding is. With `reverse` the steps run from last to first, and each output keeps
    the position of its input.

    Attributes:
        cell: a recurrent cell.
        reverse: whether to run backward.
        return_sequence: whether to return all outputs, or only that of the step made last.
        stateful: whether a call continues from the carry of the last call.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> rnn = nn.RNN.of(nn.GRUCell.of(8)) >> nn.RNN.of(nn.LSTMCell.of(4), return_sequence=False)
        >>> model = ox.init(rnn)(jax.random.key(0), jnp.ones((10, 3)))
        >>> model(jnp.ones((10, 3))).shape
        (4,)

        A stream of three examples in chunks of five steps; in the second chunk, the second example
        starts a new sequence at its third step.

        >>> template = nn.RNN.of(nn.GRUCell.of(8), stateful=True) >> nn.Dense.of(2)
        >>> model = ox.init(template)(jax.random.key(0), jnp.ones((5, 3)))
        >>> streams = ox.per_example(model, 3)
        >>> ys, streams = streams.call_and_update(jnp.ones((3, 5, 3)))
        >>> reset = jnp.zeros((3, 5), bool).at[1, 2].set(True)
        >>> ys, streams = streams.call_and_update(jnp.ones((3, 5, 3)), reset=reset)
        >>> ys.shape
        (3, 5, 2)
    """

    cell: Any
    reverse: bool = static(default=False)
    return_sequence: bool = static(default=True)
    stateful: bool = static(default=False)

    def _check_fields(self) -> None:
        self.check(self.cell, reverse=self.reverse, stateful=self.stateful)

    @classmethod
    def check(
        cls, cell: Any, *, reverse: bool = False, stateful: bool = False, **options: Any
    ) -> None:
        """Check that `cell` is a recurrent cell, and that a stateful layer runs forward."""
        check_cell(cls.__name__, cell)
        if reverse and stateful:
            raise ValueError(
                f"{cls.__name__}: with `reverse` a call starts at the end of its sequence, so it "
                "cannot continue the last call. Leave out `stateful=True`, or `reverse=True`."
            )

    @classmethod
    def initialize(
        cls,
        init_key: Any,
        in_spec: Any,
        cell: Any,
        *,
        reverse: bool = False,
        return_sequence: bool = True,
        stateful: bool = False,
    ) -> LayerParams:
        """Make the cell for one step of the input.

        Args:
            init_key: a random key, for the cell.
            in_spec: `[time, ...]`, and that of the mask if there is one.
            cell: the template of a recurrent cell, or a cell.
            reverse: whether to run backward.
            return_sequence: whether to return all outputs.
            stateful: whether a call continues from the carry of the last call.
        """
        step = step_spec(cls, in_spec)
        made, _ = build(cell, init_key, step, "cell")
        options = {"reverse": reverse, "return_sequence": return_sequence, "stateful": stateful}
        return LayerParams(params={"cell": made}, info=options)

    def call(
        self,
        x: Float[Array, "time ..."],
        mask: Bool[Array, " time"] | None = None,
        *,
        reset: Bool[Array, " time"] | Bool[Array, ""] | None = None,
    ) -> Any:
        """Return the outputs, `[time, ...]`, or the last one.

        Args:
            x: a sequence, or the next chunk of one if the layer is stateful.
            mask: True where a step is made; None means everywhere.
            reset: as in `unroll`.
        """
        if not self.stateful:
            return self.unroll(None, x, mask, reset=reset)[1]
        held = self.cell.carry  # narrower than the carry of a step if the whole model was cast
        carry, ys = self.unroll(_as(self.cell.zero_carry(), held), x, mask, reset=reset)
        self.cell.assign(carry=_as(held, carry))
        return ys

    def unroll(
        self,
        carry: Any,
        x: Float[Array, "time ..."],
        mask: Bool[Array, " time"] | None = None,
        *,
        reset: Bool[Array, " time"] | Bool[Array, ""] | None = None,
    ) -> tuple[Any, Any]:
        """Run the cell from an initial carry, as its `step` does for one step; no state changes.

        Args:
            carry: the initial carry, like `cell.zero_carry()`; None means that one.
            x: a sequence.
            mask: True where a step is made; None means everywhere.
            reset: True where a step starts a new sequence, from the zero carry, whether or not the
                mask leaves that step out; a scalar is for the first step. With `reverse`, the step
                before it starts from the zero carry.

        Returns:
            `(final carry, outputs)`; instead of all outputs only that of the step made last without
            `return_sequence`.

        Raises:
            ValueError: for a carry of another structure, shape or dtype.
            InputError: for other inputs that do not fit.

        Examples:
            An encoder hands its final carry to a decoder.

            >>> import jax, jax.numpy as jnp
            >>> import oryxstate as ox
            >>> from oryxstate import nn
            >>> class Translator(ox.Module):
            ...     encoder: nn.RNN
            ...     decoder: nn.RNN
            ...     def call(self, source, target):
            ...         carry, _ = self.encoder.unroll(None, source)
            ...         carry, ys = self.decoder.unroll(carry, target)
            ...         return ys
            >>> rnn = nn.RNN.of(nn.GRUCell.of(4))
            >>> keys = jax.random.split(jax.random.key(0))
            >>> model = Translator(*(rnn.init(key, jnp.ones((5, 3))) for key in keys))
            >>> model(jnp.ones((5, 3)), jnp.ones((2, 3))).shape
            (2, 4)
        """
        self.check_input(jnp.ndim(x) > 0, "[time, ...]", x)
        _check_mask(self, x, mask)
        zero = self.cell.zero_carry()
        carry = zero if carry is None else _conformed(self, carry, zero)
        one = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
        _, out_spec = jax.eval_shape(self.cell.step, carry, one)
        silence = jax.tree.map(lambda spec: jnp.zeros(spec.shape, spec.dtype), out_spec)

        def advance(before: Any, inputs: Any) -> tuple[Any, Any]:
            x, made, starts = inputs
            if made is not None:  # padding may be NaN, in outputs and in gradients
                x = lax.select(made, x, jnp.zeros_like(x))
            if starts is not None:
                before = _select(starts, (zero, silence), before)
            after = jax.tree.map(_explicit.alike, self.cell.step(before[0], x), before)
            if made is not None:
                after = _select(made, after, before)
            return after, after[1] if self.return_sequence else None

        inputs = x, mask, _starts(self, x, reset)
        (carry, last), ys = lax.scan(advance, (carry, silence), inputs, reverse=self.reverse)
        return carry, ys if self.return_sequence else last


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


def step_spec(cls: type[Layer], in_spec: Any) -> ArraySpec:
    """Return the spec of one step of the sequence."""
    sequence, *rest = inputs_of(in_spec)
    if not isinstance(sequence, ArraySpec) or sequence.ndim == 0 or len(rest) > 1:
        raise cls.wrong_input("[time, ...], and perhaps a mask", in_spec)
    return ArraySpec(sequence.shape[1:], sequence.dtype)


def _check_mask(layer: Layer, x: Any, mask: Any) -> None:
    if mask is not None:
        fits = jnp.shape(mask) == x.shape[:1] and mask.dtype == jnp.bool_
        layer.check_input(fits, f"a mask bool[{x.shape[0]}]", mask)


def _starts(layer: RNN, x: Any, reset: Any) -> Any:
    """Return for each step whether it starts from the zero carry, in the order of the sequence."""
    if reset is None:
        return None
    reset, time = jnp.asarray(reset), x.shape[0]
    fits = reset.shape in ((), (time,)) and reset.dtype == jnp.bool_
    layer.check_input(fits, f"a reset bool[{time}] or bool[]", reset)
    if reset.ndim == 0:
        reset = reset & (jnp.arange(time) == 0)
    return jnp.append(reset[1:], False) if layer.reverse and time else reset


def _conformed(layer: RNN, carry: Any, zero: Any) -> Any:
    """Return an initial carry with the types of the zero carry.

    Raises:
        ValueError: for another structure, shape or dtype, with the path of the layer.
    """
    leaves, structure = jax.tree.flatten(zero)
    avals = tuple(map(jax.typeof, leaves))
    try:
        return jax.tree.unflatten(structure, _tree.conform(carry, avals, structure, "a carry"))
    except ValueError:
        path = _live.path_of(layer)
        where = f"{type(layer).__name__} at '{path}'" if path else type(layer).__name__
        raise ValueError(
            f"the initial carry of {where} must be like `cell.zero_carry()`, "
            f"{make_array_spec(zero)}, but got {make_array_spec(carry)}. Give the final carry that "
            "`unroll` of an equal cell returned, an array for each of these, or None for zeros."
        ) from None


def _as(like: Any, carry: Any) -> Any:
    """Return a carry in the dtypes of another."""

    def cast(a: Any, b: Any) -> Any:
        dtype = jax.typeof(a).dtype
        return b if jax.typeof(b).dtype == dtype else lax.convert_element_type(b, dtype)

    return jax.tree.map(cast, like, carry)


def _select(which: Any, new: Any, old: Any) -> Any:
    """Return the arrays of `new` if a boolean is True, else those of `old`."""
    return jax.tree.map(lambda a, b: lax.select(which, a, b), new, old)
