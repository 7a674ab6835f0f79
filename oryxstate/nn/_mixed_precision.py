"""The precision of a model, given once for all its layers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from oryxstate import _grad, _tree
from oryxstate._module import _pytree
from oryxstate._module._fields import static
from oryxstate.nn._layer import Layer, LayerParams
from oryxstate.nn._parts import build, check_parts


class MixedPrecision(Layer):
    """A model that computes in one dtype and keeps its parameters in another.

    The policy is given once and reaches every module inside, norms in blocks included:

    - a layer with a static field `dtype` that is None gets `dtype`; one that was given a dtype of
      its own keeps it. Norms compute in float32 and return `dtype`.
    - any other module (also an Equinox module) is called with its parameters converted to `dtype`;
    - the inputs are converted to `dtype`, and the outputs to `out_dtype`;
    - parameters are converted to `param_dtype` when the layer is made, and gradients are too;
    - state, such as the running statistics of `BatchNorm` and the average of `EMA`, stays float32.

    Only floating-point arrays are converted. A `MixedPrecision` inside rules over the one around
    it, so the precision of a part is `MixedPrecision.of(part, dtype="float32")`.
    Source: Micikevicius et al., Mixed Precision Training, 2017.

    Attributes:
        layer: the model.
        dtype: the dtype to compute in.
        param_dtype: the dtype of the parameters.
        out_dtype: the dtype of the outputs.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> net = nn.Conv.of(8, 3) >> nn.ResNetBlock.of(8) >> jnp.ravel >> nn.Dense.of(2)
        >>> xs = jnp.ones((4, 8, 8, 3))
        >>> model = ox.init(nn.MixedPrecision.of(net))(jax.random.key(0), xs[0])
        >>> ys, model = ox.batch_call_and_update(model, xs, training=True)
        >>> norm = model.layer[1].body[1]
        >>> str(ys.dtype), str(norm.dtype), str(norm.scale.dtype), str(norm.mean.dtype)
        ('float32', 'bfloat16', 'float32', 'float32')
    """

    layer: Any
    dtype: Any = static(default=jnp.dtype("bfloat16"))
    param_dtype: Any = static(default=jnp.dtype("float32"))
    out_dtype: Any = static(default=jnp.dtype("float32"))

    def _check_fields(self) -> None:
        for name in ("dtype", "param_dtype", "out_dtype"):
            _check_floating(type(self).__name__, name, getattr(self, name))

    @classmethod
    def check(cls, part: Any, **dtypes: Any) -> None:
        """Check that the part is callable, and that all dtypes are floating-point types."""
        check_parts(cls.__name__, (part,))
        for name, value in dtypes.items():
            _check_floating(cls.__name__, name, value)

    @classmethod
    def initialize(
        cls,
        init_key: Any,
        in_spec: Any,
        part: Any,
        *,
        dtype: Any = jnp.bfloat16,
        param_dtype: Any = jnp.float32,
        out_dtype: Any = jnp.float32,
    ) -> LayerParams:
        """Make the model, and set the precision of all modules in it.

        Args:
            init_key: a random key, for the model.
            in_spec: of the input of the model.
            part: a template, a layer, or a function. A layer that is made is converted too.
            dtype: the dtype to compute in.
            param_dtype: the dtype of the parameters.
            out_dtype: the dtype of the outputs.
        """
        # Drawn in float32, and for inputs of that dtype: what a layer without its precision takes.
        layer, _ = build(part, init_key, _converted(in_spec, jnp.float32), "layer")
        dtypes = {"dtype": dtype, "param_dtype": param_dtype, "out_dtype": out_dtype}
        info = {name: jnp.dtype(value) for name, value in dtypes.items()}
        layer = _with_precision(layer, info["dtype"], info["param_dtype"])
        return LayerParams(params={"layer": layer}, info=info)

    def call(self, *inputs: Any) -> Any:
        """Call the model with inputs in `dtype`; the outputs have `out_dtype`."""
        outputs = _computing(self.layer, self.dtype)(*_converted(inputs, self.dtype))
        return _converted(outputs, self.out_dtype)


def _is_floating(dtype: Any) -> bool:
    try:
        return dtype is not None and bool(jnp.issubdtype(jnp.dtype(dtype), jnp.floating))
    except TypeError:  # not a dtype, or that of random keys
        return False


def _check_floating(layer: str, name: str, dtype: Any) -> None:
    if not _is_floating(dtype):
        raise ValueError(
            f"{layer}: `{name}` is a floating-point dtype, such as 'bfloat16' or 'float32', got "
            f"{dtype!r}."
        )


def _is_mixed(value: Any) -> bool:
    return isinstance(value, MixedPrecision)


def _converted(tree: Any, dtype: Any) -> Any:
    """Convert the floating-point arrays and specs of a pytree; leave others, and other policies."""

    def convert(leaf: Any) -> Any:
        if _is_mixed(leaf) or not _is_floating(getattr(leaf, "dtype", None)):
            return leaf
        if leaf.dtype == dtype:
            return leaf
        if _tree.is_spec(leaf):
            return _tree.ArraySpec(leaf.shape, dtype)
        return jnp.asarray(leaf, dtype)

    return jax.tree.map(convert, tree, is_leaf=_is_mixed)


def _with_precision(model: Any, dtype: Any, param_dtype: Any) -> Any:
    """Return a model that computes in `dtype`, with parameters of `param_dtype`."""

    def configured(module: Any, path: str) -> Any:
        if _is_mixed(module):
            return module
        module = _pytree.with_data(module, _pytree.map_children(configured, module, path))
        if "dtype" in module.__layout__.static and module.dtype is None:
            return _pytree.with_static(module, "dtype", dtype)
        return module

    params, rest = _grad.partition(_pytree.map_modules(configured, model, ""))
    return _grad.merge(_converted(params, param_dtype), rest)


def _computing(model: Any, dtype: Any) -> Any:
    """Return a live model with the parameters of modules without a field `dtype` in this dtype."""

    def converted(module: Any, path: str) -> Any:
        if _is_mixed(module):
            return module
        data = _pytree.map_children(converted, module, path)
        layout = module.__layout__
        if "dtype" not in layout.static:
            for field in set(layout.data) - set(layout.state):
                data[field] = outside(data.get(field, _pytree.stored(module, field)))
        return _pytree.with_data(module, data)

    def outside(tree: Any) -> Any:
        """Convert the arrays that are in no module."""
        leaves = jax.tree.leaves(tree, is_leaf=_pytree.is_module)
        if not any(_tree.is_array(leaf) for leaf in leaves):
            return tree
        return jax.tree.map(
            lambda leaf: leaf if _pytree.is_module(leaf) else _converted(leaf, dtype),
            tree,
            is_leaf=_pytree.is_module,
        )

    return outside(_pytree.map_modules(converted, model, ""))
