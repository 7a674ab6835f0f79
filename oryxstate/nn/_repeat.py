"""Layers that repeat another layer and trace it once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from oryxstate import _explicit, _jax
from oryxstate._module import _pytree, _takes
from oryxstate._module._fields import static
from oryxstate.nn._layer import Layer, LayerParams
from oryxstate.nn._parts import build, check_parts
from oryxstate.nn._precision import positive


class Shared(Layer):
    """One layer, called `count` times on its own output, with shared parameters and state.

    Attributes:
        layer: the layer.
        count: the number of calls.
    """

    layer: Any
    count: int = static()

    def _check_fields(self) -> None:
        positive(type(self).__name__, "count", self.count)

    @classmethod
    def check(cls, part: Any, count: int) -> None:
        """Check that the part is callable and `count` is positive."""
        check_parts(cls.__name__, (part,))
        positive(cls.__name__, "count", count)

    @classmethod
    def initialize(cls, init_key: Any, in_spec: Any, part: Any, count: int) -> LayerParams:
        """Make the layer, whose output spec must be its input spec."""
        layer, infer = build(part, init_key, in_spec, "layer")
        if infer() != in_spec:
            raise cls.wrong_input(f"a layer that returns {in_spec}, as it takes", infer())
        return LayerParams({"layer": layer}, {"count": count}, out_spec=in_spec)

    def call(self, x: Any) -> Any:
        """Return the output of the last call."""
        return lax.scan(lambda h, _: (_like(self.layer(h), h), None), x, length=self.count)[0]


def _like(y: Any, x: Any) -> Any:
    """Return an output with the sharding of the input, since it is the next input of a scan."""
    return jax.tree.map(_explicit.alike, y, x) if _same_structure(x, y) else y


def _same_structure(x: Any, y: Any) -> bool:
    return jax.tree.structure(x) == jax.tree.structure(y)


class Repeat(Layer):
    """`count` equal layers, one after another, each with its own parameters and state.

    They are traced once, as the body of a `jax.lax.scan` over their stacked arrays.

    Attributes:
        layers: the stacked layers; every array has a leading axis of length `count`.
        count: the number of layers.
        remat: whether to recompute each layer in the backward pass (`jax.checkpoint`), which saves
            memory.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> deep = nn.Repeat.of(nn.Residual.of(nn.Dense.of(3)), 24)
        >>> model = ox.init(deep)(jax.random.key(0), jnp.ones(3))
        >>> model.layers.body.kernel.shape
        (24, 3, 3)
    """

    layers: Any
    count: int = static()
    remat: bool = static(default=False)

    __stacked__: ClassVar[Mapping[str, str]] = {"layers": "layers"}

    def _check_fields(self) -> None:
        positive(type(self).__name__, "count", self.count)

    @property
    def __keywords__(self) -> dict[str, bool]:
        """The keywords that the layers take, which this layer hands on."""
        return dict.fromkeys(_takes.taken_inside(self.layers), False)

    @classmethod
    def check(cls, part: Any, count: int, *, remat: bool = False) -> None:
        """Check that the part is callable and `count` is positive."""
        check_parts(cls.__name__, (part,))
        positive(cls.__name__, "count", count)

    @classmethod
    def initialize(
        cls, init_key: Any, in_spec: Any, part: Any, count: int, *, remat: bool = False
    ) -> LayerParams:
        """Draw all layers together, each with its own key. The output spec is the input spec."""

        def one(key: Any) -> Any:
            layer, infer = build(part, key, in_spec, "layers")
            if infer() != in_spec:
                raise cls.wrong_input(f"a layer that returns {in_spec}, as it takes", infer())
            return layer

        keys = jax.random.split(init_key, count)
        # In a compiled program one by one, which needs less memory. The numbers are the same, but
        # for "rbg" keys, from which JAX draws other numbers under `vmap`.
        layers = lax.map(one, keys) if isinstance(keys, _jax.Tracer) else jax.vmap(one)(keys)
        return LayerParams({"layers": layers}, {"count": count, "remat": remat}, out_spec=in_spec)

    def call_and_update(self, x: Any, **keywords: Any) -> tuple[Any, Repeat]:
        """Return the output of the last layer, and all layers with their new state."""
        at = _pytree.state_positions(self.layers)

        def body(h: Any, each: tuple[Any, Any]) -> tuple[Any, Any]:
            layer, i = each
            own = dict(keywords)
            if own.get(_takes.RNG) is not None:
                own[_takes.RNG] = jax.random.fold_in(own[_takes.RNG], i)
            y, new = layer.call_and_update(h, **own)
            leaves = jax.tree.leaves(new)
            return _like(y, h), [leaves[i] for i in at]

        step = jax.checkpoint(body) if self.remat else body
        y, state = lax.scan(step, x, (self.layers, jnp.arange(self.count)))
        leaves, structure = jax.tree.flatten(self.layers)
        for i, leaf in zip(at, state, strict=True):
            leaves[i] = leaf
        return y, self.replace(layers=jax.tree.unflatten(structure, leaves))
