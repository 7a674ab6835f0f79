"""How is a layer repeated without tracing it again?"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from oryxstate._module import _keywords, _pytree
from oryxstate._module._fields import static
from oryxstate.nn._layer import Layer, LayerParams
from oryxstate.nn._parts import build, check_parts
from oryxstate.nn._precision import positive


class Shared(Layer):
    """One layer, called `count` times on its own output: the same parameters, the same state.

    Attributes:
        layer: the layer.
        count: how often it is called.
    """

    layer: Any
    count: int = static()

    @classmethod
    def check(cls, part: Any, count: int) -> None:
        """The part can be called, and that some times."""
        check_parts(cls.__name__, (part,))
        positive(cls.__name__, "count", count)

    @classmethod
    def initialize(cls, init_key: Any, in_spec: Any, part: Any, count: int) -> LayerParams:
        """The layer, which returns what it takes."""
        layer, infer = build(part, init_key, in_spec, "layer")
        if infer() != in_spec:
            raise cls.wrong_input(f"a layer that returns {in_spec}, as it takes", infer())
        return LayerParams({"layer": layer}, {"count": count}, out_spec=in_spec)

    def call(self, x: Any) -> Any:
        """The output of the last call."""
        return lax.scan(lambda h, _: (self.layer(h), None), x, length=self.count)[0]


class Repeat(Layer):
    """`count` layers of one kind, one after another, each with its own parameters and state.

    They are traced once, as the body of a `jax.lax.scan` over their stacked arrays.

    Attributes:
        layers: the layers as one, all arrays with a leading axis of length `count`.
        count: how many there are.
        remat: whether each is computed again on the way back (`jax.checkpoint`), which saves the
            memory of what is inside.

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

    @property
    def __keywords__(self) -> dict[str, bool]:
        """Those that the layers take: they get them from here."""
        return dict.fromkeys(_keywords.taken_inside(self.layers), False)

    @classmethod
    def check(cls, part: Any, count: int, *, remat: bool = False) -> None:
        """The part can be called, and that some times."""
        check_parts(cls.__name__, (part,))
        positive(cls.__name__, "count", count)

    @classmethod
    def initialize(
        cls, init_key: Any, in_spec: Any, part: Any, count: int, *, remat: bool = False
    ) -> LayerParams:
        """All layers drawn together, each with a key of its own; each returns what it takes."""

        def one(key: Any) -> Any:
            layer, infer = build(part, key, in_spec, "layers")
            if infer() != in_spec:
                raise cls.wrong_input(f"a layer that returns {in_spec}, as it takes", infer())
            return layer

        layers = jax.vmap(one)(jax.random.split(init_key, count))
        return LayerParams({"layers": layers}, {"count": count, "remat": remat}, out_spec=in_spec)

    def call_and_update(self, x: Any, **keywords: Any) -> tuple[Any, Repeat]:
        """The output of the last layer, and all layers with their new state."""
        at = _pytree.state_positions(self.layers)

        def body(h: Any, each: tuple[Any, Any]) -> tuple[Any, Any]:
            layer, i = each
            own = dict(keywords)
            if own.get(_keywords.RNG) is not None:
                own[_keywords.RNG] = jax.random.fold_in(own[_keywords.RNG], i)
            y, new = layer.call_and_update(h, **own)
            leaves = jax.tree.leaves(new)
            return y, [leaves[i] for i in at]

        step = jax.checkpoint(body) if self.remat else body
        y, state = lax.scan(step, x, (self.layers, jnp.arange(self.count)))
        leaves, structure = jax.tree.flatten(self.layers)
        for i, leaf in zip(at, state, strict=True):
            leaves[i] = leaf
        return y, self.replace(layers=jax.tree.unflatten(structure, leaves))
