"""Layers made of other layers: chains, parallel branches, residual connections; reshaping."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from typing import Any, overload

import jax
from jax import lax

from oryxstate import _explicit
from oryxstate._module._fields import static
from oryxstate.nn._layer import Layer, LayerParams, single, spec_in
from oryxstate.nn._parts import build, check_parts
from oryxstate.nn._placed import gathered, reshaped
from oryxstate.nn._template import chain_with, in_spec_of, inputs_of
from oryxstate.nn._together import Parts


class _Parts(Layer):
    """Layers in a tuple."""

    layers: tuple[Any, ...]

    @classmethod
    def check(cls, *parts: Any) -> None:
        """Check that every part is callable."""
        check_parts(cls.__name__, parts)


@chain_with
class Serial(_Parts):
    """One layer after another: `a >> b >> c`. An empty chain returns its input.

    A tuple that one layer returns becomes the inputs of the next. `chain[i]` is a layer of it, and
    `chain[i:j]` a chain of some; they share the arrays of the chain, and inside a call its state.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> model = ox.init(nn.Dense.of(4) >> jax.nn.relu)(jax.random.key(0), jnp.ones(3))
        >>> model(jnp.ones(3)).shape
        (4,)
        >>> len(model), model[0], len(model[1:])
        (2, Dense(kernel=f32[3,4], bias=f32[4]), 1)
    """

    def __len__(self) -> int:
        return len(self.layers)

    def __bool__(self) -> bool:
        """Return True: a model is there, whether or not it has layers."""
        return True

    def __iter__(self) -> Iterator[Any]:
        return iter(self.layers)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Serial: ...
    def __getitem__(self, index: int | slice) -> Any:
        """Return a layer, or for a slice the chain of some layers, without the name of this one.

        Raises:
            IndexError: for a layer that is not there.
            TypeError: for an index that is neither an integer nor a slice.
        """
        if isinstance(index, slice):
            return Serial(self.layers[index])
        try:
            return self.layers[operator.index(index)]
        except IndexError:
            kinds = ", ".join(type(layer).__name__ for layer in self.layers)
            raise IndexError(
                f"layer {index} of a Serial of {len(self)}: {kinds or 'it is empty'}."
            ) from None
        except TypeError:
            raise TypeError(
                f"the layers of a Serial are counted, `chain[0]` or `chain[1:]`, got {index!r}."
            ) from None

    @classmethod
    def initialize(cls, init_key: Any, in_spec: Any, *parts: Any) -> LayerParams:
        """Make each part for the output of the previous one, each with its own key."""
        made, out_spec = Parts(init_key, len(parts)), in_spec
        for part in parts:
            out_spec = made.add(part, in_spec_of(inputs_of(out_spec)))
        return LayerParams(params={"layers": made.layers()}, out_spec=out_spec)

    def call(self, *inputs: Any) -> Any:
        """Return the output of the last layer."""
        out = inputs[0] if len(inputs) == 1 else inputs
        for layer in self.layers:
            out = layer(*inputs)
            inputs = inputs_of(out)
        return out


class FanOut(_Parts):
    """The same inputs to each layer; the outputs as a tuple."""

    @classmethod
    def initialize(cls, init_key: Any, in_spec: Any, *parts: Any) -> LayerParams:
        """Make each part for the inputs, each with its own key."""
        return _side_by_side(init_key, [in_spec] * len(parts), parts)

    def call(self, *inputs: Any) -> tuple[Any, ...]:
        """Return one output for each layer."""
        return tuple(layer(*inputs) for layer in self.layers)


class Parallel(_Parts):
    """The i-th input to the i-th layer; the outputs as a tuple.

    The inputs are the arguments, or the members of a single tuple.
    """

    @classmethod
    def initialize(cls, init_key: Any, in_spec: Any, *parts: Any) -> LayerParams:
        """Make the i-th part for the i-th input, each with its own key."""
        if not isinstance(in_spec, tuple) or len(in_spec) != len(parts):
            raise cls.wrong_input(f"{len(parts)} inputs", in_spec)
        return _side_by_side(init_key, in_spec, parts)

    def call(self, *inputs: Any) -> tuple[Any, ...]:
        """Return one output for each layer."""
        given = inputs[0] if len(inputs) == 1 and isinstance(inputs[0], tuple) else inputs
        self.check_input(len(given) == len(self.layers), f"{len(self.layers)} inputs", given)
        return tuple(layer(x) for layer, x in zip(self.layers, given, strict=True))


def _side_by_side(init_key: Any, in_specs: Any, parts: tuple[Any, ...]) -> LayerParams:
    made = Parts(init_key, len(parts))
    out_spec = tuple(made.add(*each) for each in zip(parts, in_specs, strict=True))
    return LayerParams(params={"layers": made.layers()}, out_spec=out_spec)


class Residual(Layer):
    """`shortcut(x) + body(x)`; without a `shortcut`, `x + body(x)`.

    Source: He et al., Deep Residual Learning for Image Recognition, 2015.
    """

    body: Any
    shortcut: Any

    @classmethod
    def check(cls, body: Any, shortcut: Any = None) -> None:
        """Check that both are callable."""
        check_parts("Residual", (body, *([] if shortcut is None else [shortcut])))

    @classmethod
    def initialize(
        cls, init_key: Any, in_spec: Any, body: Any, shortcut: Any = None
    ) -> LayerParams:
        """Make both for the input, each with its own key."""
        keys = jax.random.split(init_key)
        inner, infer = build(body, keys[0], in_spec, "body")
        around, out_spec = None, in_spec
        if shortcut is not None:
            around, infer_around = build(shortcut, keys[1], in_spec, "shortcut")
            out_spec = infer_around()
        if infer() != out_spec:
            raise cls.wrong_input(f"a body that returns {out_spec}, as its shortcut", infer())
        return LayerParams(params={"body": inner, "shortcut": around}, out_spec=out_spec)

    def call(self, x: Any) -> Any:
        """Return the sum."""
        return jax.tree.map(jax.numpy.add, self._around(x), self.body(x))

    def _around(self, x: Any) -> Any:
        return x if self.shortcut is None else self.shortcut(x)


class Branch(_Parts):
    """One of several layers, chosen by an index; the state of the others does not change.

    The index is clamped, as by `jax.lax.switch`. All outputs have one type.
    """

    @classmethod
    def initialize(cls, init_key: Any, in_spec: Any, *parts: Any) -> LayerParams:
        """Make each part for the inputs after the index, each with its own key."""
        if not parts:
            raise ValueError("Branch needs at least one layer to choose from.")
        if not isinstance(in_spec, tuple) or len(in_spec) < 2:
            raise cls.wrong_input("an index and an input", in_spec)
        rest = in_spec[1] if len(in_spec) == 2 else in_spec[1:]
        made = _side_by_side(init_key, [rest] * len(parts), parts)
        outs = made.out_spec
        if any(out != outs[0] for out in outs):
            raise cls.wrong_input(f"layers that all return {outs[0]}", outs)
        return LayerParams(params=made.params, out_spec=outs[0])

    def call(self, index: Any, *inputs: Any) -> Any:
        """Return the output of the chosen layer."""

        def whole(layer: Any) -> Any:  # all layers return one type, which a `vmap` selects from
            return lambda *xs: jax.tree.map(_explicit.whole, layer(*xs))

        return lax.switch(index, [whole(layer) for layer in gathered(self.layers)], *inputs)


class Flatten(Layer):
    """Flatten all axes of one example into one."""

    @classmethod
    def initialize(cls, init_key: Any, in_spec: Any) -> LayerParams:
        """Return the configuration; the layer has no parameters."""
        return LayerParams()

    def _out_spec(self, in_spec: Any) -> Any:
        single(type(self), in_spec)
        return spec_in(None, (in_spec.size,), in_spec)

    def call(self, x: jax.Array) -> jax.Array:
        """Return the elements as a vector."""
        return reshaped(x, (x.size,))


class Reshape(Layer):
    """Reshape one example; one length may be -1."""

    shape: tuple[int, ...] = static()

    def _check_fields(self) -> None:
        self.check(*self.shape)

    @classmethod
    def check(cls, *shape: int) -> None:
        """Check that at most one length is -1, and the others are not negative."""
        if any(length < -1 for length in shape) or shape.count(-1) > 1:
            raise ValueError(
                f"Reshape: lengths must not be negative, but for one -1, got {list(shape)}."
            )

    @classmethod
    def initialize(cls, init_key: Any, in_spec: Any, *shape: int) -> LayerParams:
        """Return the shape, which fits the number of elements."""
        if not _fits(shape, single(cls, in_spec).size):
            raise cls.wrong_input(_elements(shape), in_spec)
        return LayerParams(info={"shape": shape})

    def call(self, x: jax.Array) -> jax.Array:
        """Return the same elements in the new shape."""
        self.check_input(_fits(self.shape, x.size), _elements(self.shape), x)
        known = math.prod(length for length in self.shape if length != -1)
        return reshaped(x, tuple(x.size // known if n == -1 else n for n in self.shape))


def _fits(shape: tuple[int, ...], size: int) -> bool:
    given = math.prod(length for length in shape if length != -1)
    return given > 0 and size % given == 0 if -1 in shape else size == given


def _elements(shape: tuple[int, ...]) -> str:
    return f"as many elements as fit in {list(shape)}"
