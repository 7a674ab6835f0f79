"""Embeddings, and encodings of positions in a sequence."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from oryxstate._module._fields import param, static
from oryxstate.nn._angles import angles
from oryxstate.nn._initializers import Initializer
from oryxstate.nn._layer import Layer, LayerParams, single
from oryxstate.nn._placed import matmul, rows
from oryxstate.nn._precision import above_zero, computing, positive, wide

# Variance 1 / features: products of a unit vector with a row, as in `attend`, have variance 1.
embedding_normal = jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal", out_axis=0)


class Embedding(Layer):
    """`y = embedding[x]`: a learned vector for each of `vocabulary` integers.

    An integer outside `[0, vocabulary)` gives NaN and no gradient.

    Attributes:
        embedding: `[vocabulary, features]`.
        dtype: the dtype of the output; that of the parameter if None.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> ids = jnp.array([2, 0, 1])
        >>> embedding = ox.init(nn.Embedding.of(5, 4))(jax.random.key(0), ids)
        >>> y = embedding(ids)
        >>> y.shape, embedding.attend(y).shape
        ((3, 4), (3, 5))
    """

    embedding: Float[Array, "vocabulary features"] = param(axes=("vocab", "embed"))
    dtype: Any = static(default=None)

    @classmethod
    def check(cls, vocabulary: int, features: int, **options: Any) -> None:
        """Check that both numbers are positive."""
        positive(cls.__name__, "vocabulary", vocabulary)
        positive(cls.__name__, "features", features)

    @classmethod
    def initialize(
        cls,
        init_key: Any,
        in_spec: Any,
        vocabulary: int,
        features: int,
        *,
        embedding_init: Initializer = embedding_normal,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
    ) -> LayerParams:
        """Draw the vectors.

        Args:
            init_key: a random key.
            in_spec: integers of any shape.
            vocabulary: the number of vectors.
            features: the length of each.
            embedding_init: draws them, `(key, shape, dtype) -> array`.
            dtype: the dtype of the output.
            param_dtype: the dtype of the parameter.
        """
        if not jnp.issubdtype(single(cls, in_spec).dtype, jnp.integer):
            raise cls.wrong_input("integers", in_spec)
        embedding = embedding_init(init_key, (vocabulary, features), param_dtype)
        return LayerParams(params={"embedding": embedding}, info={"dtype": dtype})

    def call(self, x: Integer[Array, "..."]) -> Float[Array, "... features"]:
        """Look up the vector of each integer."""
        self.check_input(jnp.issubdtype(x.dtype, jnp.integer), "integers", x)
        (embedding,) = computing(self.dtype, self.embedding)
        return rows(embedding, x)

    def attend(self, x: Float[Array, "... features"]) -> Float[Array, "... vocabulary"]:
        """Logits with tied weights: `x @ embedding.T`.

        Source: Press and Wolf, Using the Output Embedding to Improve Language Models, 2016.
        """
        size = self.embedding.shape[1]
        self.check_input(x.ndim > 0 and x.shape[-1] == size, f"[..., {size}] to attend", x)
        x, embedding = computing(self.dtype, x, self.embedding)
        return matmul(x, embedding.T)


class SinusoidalPosition(Layer):
    """Add a fixed vector for each position to a sequence, `[..., time, features]`.

        table[t, 2i] = sin(t / 10000 ** (2i / features))
        table[t, 2i + 1] = cos(t / 10000 ** (2i / features))

    Source: Vaswani et al., Attention Is All You Need, 2017.

    Examples:
        >>> import jax.numpy as jnp
        >>> from oryxstate import nn
        >>> nn.SinusoidalPosition()(jnp.zeros((2, 2))).round(3).tolist()
        [[0.0, 1.0], [0.8410000205039978, 0.5400000214576721]]
    """

    @classmethod
    def initialize(cls, init_key: Any, in_spec: Any) -> LayerParams:
        """Return the configuration; the layer has no parameters."""
        if not _is_sequence(single(cls, in_spec)):
            raise cls.wrong_input("[..., time, an even number of features]", in_spec)
        return LayerParams()

    def call(self, x: Float[Array, "... time features"]) -> Float[Array, "... time features"]:
        """Add the table to the input."""
        self.check_input(_is_sequence(x), "[..., time, an even number of features]", x)
        steps = jnp.arange(x.shape[-2], dtype=jnp.int32)
        turned = angles(steps, x.shape[-1], 10000.0, wide(x).dtype)
        pairs = jnp.stack([jnp.sin(turned), jnp.cos(turned)], axis=-1)
        table = pairs.reshape(x.shape[-2:]).astype(x.dtype)
        return x + jnp.broadcast_to(table, x.shape)


def rotary(x: jax.Array, positions: Any, base: float = 10000.0) -> jax.Array:
    """Rotate pairs of features by angles that grow with the position.

    Feature `i` and feature `i + features / 2` are turned by `position / base ** (2i / features)`,
    so that the product of two rotated vectors depends on the difference of their positions.
    Source: Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021, which
    pairs neighbours instead; halves are paired as in GPT-NeoX and Llama.

    Args:
        x: `[*axes, ..., features]`.
        positions: positions along the first axes of `x`, `[*axes]`, such as `[time]` for
            `[time, heads, features]`. Angles of integers are exact at any position; those of
            floats are rounded, in float32 by about `1e-7 * position`.
        base: the base of the frequencies, positive.

    Returns:
        An array like `x`, computed at least in float32.

    Raises:
        ValueError: if `x` is not floating-point, its features are odd, the positions are not those
            of the first axes, or the base is not positive.

    Examples:
        >>> import jax.numpy as jnp
        >>> from oryxstate import nn
        >>> nn.rotary(jnp.array([[1.0, 0.0]]), jnp.array([jnp.pi / 2])).round(3).tolist()
        [[-0.0, 1.0]]
    """
    positions = jnp.asarray(positions)
    above_zero("rotary", "base", base)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"rotary takes floating-point numbers, since it turns them by angles, but got {x.dtype}"
            ". Convert them, `x.astype(jnp.float32)`."
        )
    if x.ndim == 0 or x.shape[-1] % 2 or positions.shape != x.shape[:-1][: positions.ndim]:
        raise ValueError(
            "rotary takes x of shape [*axes, ..., an even number of features] and positions of "
            f"shape [*axes], but got {list(x.shape)} and {list(positions.shape)}."
        )
    turned = angles(positions, x.shape[-1], base, wide(x).dtype)
    turned = jnp.expand_dims(turned, tuple(range(positions.ndim, x.ndim - 1)))
    first, second = jnp.split(wide(x), 2, axis=-1)
    cos, sin = jnp.cos(turned), jnp.sin(turned)
    pairs = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(pairs, axis=-1).astype(x.dtype)


class RotaryPosition(Layer):
    """`rotary` with the positions 0, 1, ... along the first axis, `[time, ..., features]`.

    For queries and keys of attention, `[time, heads, features]`.

    Attributes:
        base: the base of the frequencies.

    Examples:
        >>> import jax.numpy as jnp
        >>> from oryxstate import nn
        >>> nn.RotaryPosition()(jnp.ones((5, 2, 4))).shape
        (5, 2, 4)
    """

    base: float = static(default=10000.0)

    def _check_fields(self) -> None:
        self.check(self.base)

    @classmethod
    def check(cls, base: float = 10000.0) -> None:
        """Check that the base is positive."""
        above_zero(cls.__name__, "base", base)

    @classmethod
    def initialize(cls, init_key: Any, in_spec: Any, base: float = 10000.0) -> LayerParams:
        """Return the configuration; the layer has no parameters."""
        if not _is_sequence(single(cls, in_spec)):
            raise cls.wrong_input("[time, ..., an even number of features]", in_spec)
        return LayerParams(info={"base": base})

    def call(self, x: Float[Array, "time ... features"]) -> Float[Array, "time ... features"]:
        """Rotate the input by position."""
        self.check_input(_is_sequence(x), "[time, ..., an even number of features]", x)
        return rotary(x, jnp.arange(x.shape[0], dtype=jnp.int32), self.base)


def _is_sequence(x: Any) -> bool:
    return x.ndim > 1 and x.shape[-1] % 2 == 0 and bool(jnp.issubdtype(x.dtype, jnp.floating))
