"""Blocks of large models: multi-layer perceptrons and transformer blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from oryxstate._module._fields import static
from oryxstate._tree import ArraySpec
from oryxstate.nn._layer import Layer, LayerParams, single
from oryxstate.nn._layer_norm import RMSNorm
from oryxstate.nn._linear import Dense
from oryxstate.nn._noise import Dropout
from oryxstate.nn._parts import build, check_parts
from oryxstate.nn._precision import fraction, positive
from oryxstate.nn._template import Template

rms = RMSNorm.of()


class MLP(Layer):
    """Dense layers over the last axis, with an activation between them.

    Attributes:
        layers: the `Dense` layers.
        activation: an elementwise function.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> mlp = ox.init(nn.MLP.of((64, 64, 10), jax.nn.gelu))(jax.random.key(0), jnp.ones(3))
        >>> mlp(jnp.ones(3)).shape
        (10,)
    """

    layers: tuple[Dense, ...]
    activation: Callable[[jax.Array], jax.Array] = static(default=jax.nn.relu)

    def _check_fields(self) -> None:
        self._check_activation(self.activation)

    @classmethod
    def check(
        cls, features: tuple[int, ...], activation: Any = jax.nn.relu, **options: Any
    ) -> None:
        """Check that there are layers, and that their numbers of features are positive."""
        if not isinstance(features, tuple) or not features:
            raise ValueError(
                f"{cls.__name__}: `features` is a tuple, the number of features that each layer "
                f"returns, got {features!r}."
            )
        positive(cls.__name__, "features", *features)
        cls._check_activation(activation)

    @classmethod
    def _check_activation(cls, activation: Any) -> None:
        if not callable(activation):
            raise TypeError(f"{cls.__name__}: `activation` is a function, got {activation!r}.")

    @classmethod
    def initialize(
        cls,
        init_key: Any,
        in_spec: Any,
        features: tuple[int, ...],
        activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
        *,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
    ) -> LayerParams:
        """Make each layer for the output of the previous one, each with its own key.

        Args:
            init_key: a random key.
            in_spec: `[..., in]`.
            features: the length of the last axis of the output of each layer.
            activation: applied between layers, not after the last.
            use_bias: whether the layers have biases.
            dtype: the dtype to compute in.
            param_dtype: the dtype of the parameters.
        """
        if single(cls, in_spec).ndim == 0:
            raise cls.wrong_input("[..., in]", in_spec)
        layers, spec, options = [], in_spec, {"dtype": dtype, "param_dtype": param_dtype}
        for i, size in enumerate(features):
            axes = _axes(i, len(features))
            dense = Dense.of(size, use_bias=use_bias, axes=axes, **options)
            layer, _ = build(dense, jax.random.fold_in(init_key, i), spec, f"layers[{i}]")
            layers.append(layer)
            spec = ArraySpec((*spec.shape[:-1], size), spec.dtype)
        return LayerParams(params={"layers": tuple(layers)}, info={"activation": activation})

    def call(self, x: Float[Array, "... in"]) -> Float[Array, "... out"]:
        """Return the output of the last layer."""
        first, *others = self.layers
        x = first(x)
        for layer in others:
            x = layer(self.activation(x))
        return x


def _axes(i: int, count: int) -> tuple[str, str]:
    """Return the names of the axes of one of several layers: wide and narrow in turn."""
    wide = i % 2 == 0 and i < count - 1
    return "mlp" if i % 2 else "embed", "mlp" if wide else "embed"


class TransformerBlock(Layer):
    """Attention and a feed-forward network, each added to its input, with norms.

        x = x + dropout(attention(attention_norm(x)))
        x = x + dropout(mlp(mlp_norm(x)))

    The norms stand before the parts, as in GPT-2 and Llama; a norm after the last block is up to
    the model. With `norm_first=False` they stand after the sums, as in BERT and by default in
    PyTorch:

        x = attention_norm(x + dropout(attention(x)))
        x = mlp_norm(x + dropout(mlp(x)))

    The output has the dtype of the input. Sources: Xiong et al., On Layer Normalization in the
    Transformer Architecture, 2020; Vaswani et al., Attention Is All You Need, 2017 (norms last).

    Attributes:
        attention: maps `[time, features]` to the same shape, such as `MultiHeadAttention`.
        mlp: maps `[time, features]` to the same shape, such as `MLP`.
        attention_norm: the norm before attention, or after its sum.
        mlp_norm: the norm before the network, or after its sum.
        dropout: the `Dropout` after both, or None.
        norm_first: whether the norms stand before the parts.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> attention = nn.MultiHeadAttention.of(2, causal=True, rotary_base=10000.0)
        >>> template = nn.TransformerBlock.of(attention, nn.MLP.of((32, 8), jax.nn.gelu))
        >>> x = jax.random.normal(jax.random.key(1), (5, 8))
        >>> block = ox.init(template)(jax.random.key(0), x)
        >>> decoder = block.cached(max_length=5)
        >>> bool(jnp.allclose(decoder(x), block(x), atol=1e-5))
        True
    """

    attention: Any
    mlp: Any
    attention_norm: Any
    mlp_norm: Any
    dropout: Dropout | None
    norm_first: bool = static(default=True)

    @classmethod
    def check(
        cls, attention: Any, mlp: Any, *, norm: Any = rms, dropout: float = 0.0, **options: Any
    ) -> None:
        """Check that the parts are callable, `norm` is a template, and `dropout` is in [0, 1)."""
        check_parts(cls.__name__, (attention, mlp, norm))
        fraction(cls.__name__, "dropout", dropout)
        if not isinstance(norm, Template):
            raise TypeError(
                f"{cls.__name__} makes two norms, so `norm` is a template, as `LayerNorm.of()`, "
                f"got {norm!r}."
            )

    @classmethod
    def initialize(
        cls,
        init_key: Any,
        in_spec: Any,
        attention: Any,
        mlp: Any,
        *,
        norm: Template[Any] = rms,
        dropout: float = 0.0,
        norm_first: bool = True,
    ) -> LayerParams:
        """Make each part for the input, each with its own key.

        Args:
            init_key: a random key.
            in_spec: `[time, features]`.
            attention: a template, or a layer.
            mlp: a template, or a layer.
            norm: the template of both norms.
            dropout: the probability to drop each feature of their outputs during training.
            norm_first: whether the norms stand before the parts, or after the sums.
        """
        parts = {
            "attention": attention,
            "mlp": mlp,
            "attention_norm": norm,
            "mlp_norm": norm,
        }
        made, keys = {}, jax.random.split(init_key, len(parts))
        for key, (name, part) in zip(keys, parts.items(), strict=True):
            made[name], infer = build(part, key, single(cls, in_spec), name)
            out_shape = getattr(infer(), "shape", None)
            if out_shape != in_spec.shape:
                raise cls.wrong_input(f"a part `{name}` of the shape of {in_spec}", infer())
        made["dropout"] = Dropout(dropout) if dropout else None
        return LayerParams(params=made, info={"norm_first": norm_first}, out_spec=in_spec)

    def call(
        self, x: Float[Array, "time features"], mask: Bool[Array, "*heads time time"] | None = None
    ) -> Float[Array, "time features"]:
        """Add the outputs of attention and network to the input.

        Args:
            x: a sequence.
            mask: True where a step may attend, for attention that takes a mask.
        """
        options = {} if mask is None else {"mask": mask}
        x = self._combined(x, lambda h: self.attention(h, **options), self.attention_norm)
        return self._combined(x, self.mlp, self.mlp_norm)

    def cached(self, max_length: int, dtype: Any = None) -> Self:
        """Return the block that decodes step by step with these parameters, with an empty cache.

        Args:
            max_length: the number of steps in the cache.
            dtype: the dtype of the cache, as in `MultiHeadAttention.cached`.

        Raises:
            ValueError: if its attention is not causal.
        """
        options = {} if dtype is None else {"dtype": dtype}
        return self.replace(attention=self.attention.cached(max_length, **options))

    def _combined(self, x: jax.Array, part: Callable[..., Any], norm: Any) -> jax.Array:
        """Add the output of one part to its input, and normalize before or after."""
        if self.norm_first:
            return self._added(x, part(norm(x)))
        return norm(self._added(x, part(x))).astype(x.dtype)

    def _added(self, x: jax.Array, more: jax.Array) -> jax.Array:
        more = more if self.dropout is None else self.dropout(more)
        return x + more.astype(x.dtype)
