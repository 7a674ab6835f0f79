"""Multi-head attention."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from oryxstate._module._fields import static
from oryxstate._tree import ArraySpec
from oryxstate.nn._heads import Heads, check_heads, projections
from oryxstate.nn._initializers import Initializer, glorot, zeros
from oryxstate.nn._kv_cache import CachedAttention, with_cache
from oryxstate.nn._layer import LayerParams
from oryxstate.nn._precision import positive
from oryxstate.nn._template import inputs_of


class MultiHeadAttention(Heads):
    """Scaled dot-product attention in several heads, over the first axis of one sequence.

    With queries `q = query(x)`, keys `k = key(context)` and values `v = value(context)` in heads,
    each of `head_features` features,

        y = out(softmax(q @ k.T / sqrt(head_features)) @ v)

    where the context is `x` itself unless another is given. With fewer `kv_heads` than heads, each
    head of keys and values serves `heads / kv_heads` neighbouring heads of queries. `cached`
    returns the layer that decodes step by step with these parameters.

    A step that may see nothing, such as the padding before a causal sequence, takes zeros for the
    mean: its output is the bias of `out`. Steps that the mask hides from all others do not change
    the outputs of these, not even if they are NaN. Gradients of the projections multiply all steps
    of the input, so set padding to finite values for training. Logits and softmax are computed at
    least in float32, and input and context of different dtypes are promoted. Sources: Vaswani et
    al., Attention Is All You Need, 2017; Ainslie et al., GQA, 2023; Su et al., RoFormer, 2021
    (rotary positions).

    Attributes:
        query: `Dense` to `heads * head_features`.
        key: `Dense` to `kv_heads * head_features`, head after head.
        value: likewise.
        out: `Dense` from `heads * head_features` to the features of the input.
        heads: the number of heads of queries.
        kv_heads: the number of heads of keys and values.
        rotary_base: the base of rotary positions of queries and keys, or None.
        causal: whether each step attends only to itself and earlier steps.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> x, context = jnp.ones((5, 8)), jnp.ones((3, 6))
        >>> attention = ox.init(nn.MultiHeadAttention.of(2))(jax.random.key(0), x, context)
        >>> attention(x, context, mask=jnp.ones((5, 3), bool)).shape
        (5, 8)
    """

    causal: bool = static(default=False)

    @classmethod
    def check(
        cls,
        heads: int,
        *,
        kv_heads: int | None = None,
        head_features: int | None = None,
        rotary_base: float | None = None,
        **options: Any,
    ) -> None:
        """Check that the numbers are positive, and that `kv_heads` divides `heads`."""
        check_heads(cls.__name__, heads, heads if kv_heads is None else kv_heads, rotary_base)
        positive(cls.__name__, "head_features", 1 if head_features is None else head_features)
        if rotary_base is not None and (head_features or 0) % 2:
            raise ValueError(
                f"{cls.__name__}: rotary positions turn pairs of features, so `head_features` must "
                f"be even, got {head_features}."
            )

    @classmethod
    def initialize(
        cls,
        init_key: Any,
        in_spec: Any,
        heads: int,
        *,
        kv_heads: int | None = None,
        head_features: int | None = None,
        causal: bool = False,
        rotary_base: float | None = None,
        use_bias: bool = True,
        kernel_init: Initializer = glorot,
        bias_init: Initializer = zeros,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
    ) -> LayerParams:
        """Draw the parameters.

        Args:
            init_key: a random key.
            in_spec: `[time, features]`, and `[time, features]` of the context if there is one.
            heads: the number of heads.
            kv_heads: the number of heads of keys and values; `heads` if None.
            head_features: the features of each head; those of the input over `heads` if None.
            causal: whether each step attends only to itself and earlier steps.
            rotary_base: the base of rotary positions, such as 10000.0; no positions if None.
            use_bias: whether the four projections have biases.
            kernel_init: draws their kernels, `(key, shape, dtype) -> array`.
            bias_init: draws their biases.
            dtype: the dtype to compute in.
            param_dtype: the dtype of the parameters.
        """
        alone = causal or rotary_base is not None
        x, context = _specs(cls, in_spec, alone)
        kv_heads = heads if kv_heads is None else kv_heads
        features = head_features or _shared_out(cls, x, heads, rotary_base is not None)
        made = projections(
            init_key,
            (x, context),
            (heads, kv_heads),
            features,
            use_bias=use_bias,
            kernel_init=kernel_init,
            bias_init=bias_init,
            dtype=dtype,
            param_dtype=param_dtype,
        )
        info = {"heads": heads, "kv_heads": kv_heads, "rotary_base": rotary_base, "causal": causal}
        return LayerParams(params=made, info=info)

    def call(
        self,
        x: Float[Array, "time features"],
        context: Float[Array, "context context_features"] | None = None,
        mask: Bool[Array, "*heads time context"] | None = None,
    ) -> Float[Array, "time features"]:
        """Attend from each step of `x` to `context`.

        Args:
            x: a sequence.
            context: the sequence to attend to; `x` if None.
            mask: True where a step may attend, `[time, context]` or `[heads, time, context]`.
        """
        self._check_sequence(x, self.query, "")
        if context is not None:
            free = not self.causal and self.rotary_base is None
            self.check_input(free, ALONE, (x, context))
            self._check_sequence(context, self.key, "a context ")
        at = jnp.arange(len(x), dtype=jnp.int32)
        queries = self._queries(x, at)
        keys, values = self._keys_and_values(x if context is None else context, at)
        seen = None if mask is None else self._checked(mask, (len(x), len(keys)))
        return self._attend(queries, keys, values, mask=seen, causal=self.causal)

    def cached(self, max_length: int, dtype: Any = None) -> CachedAttention:
        """Return the layer that decodes with these parameters, with an empty cache.

        Args:
            max_length: how many steps there is room for.
            dtype: the dtype of the cached keys and values; if None, the dtype that the layer
                computes in, or else that of its parameters. Give it for inputs of a wider dtype
                than the parameters', whose keys and values would be rounded.

        Raises:
            ValueError: if this attention is not causal.
        """
        positive("CachedAttention", "max_length", max_length)
        if not self.causal:
            raise ValueError(
                "only causal attention can be decoded step by step, since its past does not look "
                "at what comes. Make it so, `MultiHeadAttention.of(..., causal=True)`."
            )
        return CachedAttention.new(with_cache(self, max_length, dtype), self.name)

    def _checked(self, mask: Any, shape: tuple[int, int]) -> Any:
        """Return the mask as `[heads or 1, time, context]`."""
        fits = mask.shape in (shape, (self.heads, *shape)) and mask.dtype == jnp.bool_
        axes = ",".join(map(str, shape))
        self.check_input(fits, f"a mask bool[{axes}] or bool[{self.heads},{axes}]", mask)
        return mask if mask.ndim == 3 else mask[None]


ALONE = "no context, since causal attention and rotary positions are of one sequence"


def _specs(cls: Any, in_spec: Any, alone: bool) -> tuple[ArraySpec, ArraySpec]:
    """Return the specs of the input and of its context."""
    x, *others = inputs_of(in_spec)
    context = others[0] if others and others[0] is not None else x
    if alone and context is not x:
        raise cls.wrong_input(ALONE, in_spec)
    if any(not isinstance(spec, ArraySpec) or spec.ndim != 2 for spec in (x, context)):
        raise cls.wrong_input("[time, features], and perhaps a context", in_spec)
    if x.shape[1] == 0:
        raise cls.wrong_input("[time, features] with at least one feature", in_spec)
    return x, context


def _shared_out(cls: Any, spec: ArraySpec, heads: int, even: bool) -> int:
    """Divide the features of the input among the heads."""
    each, left = divmod(spec.shape[1], heads)
    if left or not each:
        raise cls.wrong_input(
            f"[time, features] whose features {heads} heads share (or give `head_features`)", spec
        )
    if even and each % 2:
        raise cls.wrong_input(
            f"[time, features] of which each of {heads} heads gets an even number, for rotary "
            "positions (or give `head_features`)",
            spec,
        )
    return each
