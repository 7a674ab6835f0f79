"""Layers that change how the parameters of another layer are used or learned."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from oryxstate import _grad
from oryxstate._module._axes import STACK, named
from oryxstate._module._fields import param, state, static
from oryxstate._module._live import snapshot
from oryxstate._tree import named_leaves
from oryxstate.nn._initializers import Initializer, drawn
from oryxstate.nn._layer import Layer, LayerParams
from oryxstate.nn._linear import Dense
from oryxstate.nn._parts import build, check_parts
from oryxstate.nn._placed import matmul
from oryxstate.nn._precision import blended, computing, fraction, positive, wide

small = jax.nn.initializers.he_uniform()


class EMA(Layer):
    """A layer evaluated with the exponential moving average of its parameters.

        average <- decay * average + (1 - decay) * parameters

    at each call during training, starting from the first parameters. A call sees the parameters
    that the optimizer left, so the average is one step behind. The average is kept at least in
    float32, since in 16 bits it would stop far from the parameters; the layer is called with it in
    their dtypes.

    If the optimizer changes the parameters only at every k-th call, since it accumulates gradients
    (`optax.MultiSteps(optimizer, k)`) or since a step calls the model k times, give `every=k`. The
    first of each k calls updates the average, which is then that of k times as large batches.

    (`optax.ema` averages outside the model; here the average is state, saved and threaded with it.)
    Source: Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992.

    Attributes:
        layer: the layer.
        shadow: the averages by the path of the parameter in the layer, of at least float32.
        count: the number of training calls since the average was updated, int32; 0 if the next one
            updates it.
        decay: the weight of the old average.
        every: the number of training calls for each update of the average.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> x = jnp.ones(3)
        >>> model = ox.init(nn.EMA.of(nn.Dense.of(2), decay=0.5))(jax.random.key(0), x)
        >>> y, model = model.call_and_update(x, training=True)
        >>> model.averaged()
        Dense(kernel=f32[3,2], bias=f32[2])
        >>> bool((model.averaged()(x) == model(x, training=False)).all())
        True
    """

    layer: Any
    shadow: dict[str, jax.Array] = state(axes=lambda ema: _names_by_path(ema.layer))
    count: Int[Array, ""] = state(axes=())
    decay: float = static(default=0.999)
    every: int = static(default=1)

    def _check_fields(self) -> None:
        fraction(type(self).__name__, "decay", self.decay)
        positive(type(self).__name__, "every", self.every)

    @classmethod
    def check(cls, part: Any, decay: float = 0.999, *, every: int = 1) -> None:
        """Check that the part is callable, the decay in [0, 1), and `every` positive."""
        check_parts(cls.__name__, (part,))
        fraction(cls.__name__, "decay", decay)
        positive(cls.__name__, "every", every)

    @classmethod
    def initialize(
        cls, init_key: Any, in_spec: Any, part: Any, decay: float = 0.999, *, every: int = 1
    ) -> LayerParams:
        """Make the layer, and the average, which starts at its parameters.

        Args:
            init_key: a random key, for the layer.
            in_spec: of the input of the layer.
            part: a template, a layer or a function.
            decay: the weight of the old average.
            every: the number of training calls for each update of the average.
        """
        layer, infer = build(part, init_key, in_spec, "layer")
        learned = named_leaves(_grad.partition(layer)[0])
        shadow = {path: jnp.copy(wide(leaf)) for path, leaf in learned.items()}
        return LayerParams(
            {"layer": layer},
            {"decay": decay, "every": every},
            {"shadow": shadow, "count": jnp.array(0, jnp.int32)},
            infer(),
        )

    def call(self, *inputs: Any, training: bool) -> Any:
        """Call the layer with its current parameters during training, else with their average."""
        if not self.trains(training):
            return self.averaged()(*inputs)
        learned, shadow = named_leaves(_grad.partition(snapshot(self.layer))[0]), self.shadow
        shadow = {path: self._mixed(shadow[path], leaf) for path, leaf in learned.items()}
        self.assign(shadow=shadow, count=(self.count + 1) % self.every)
        return self.layer(*inputs)

    @property
    def average(self) -> Any:
        """The average, of the structure of `oryxstate.partition(layer)[0]`; at least float32."""
        return self._split()[0]

    def averaged(self) -> Any:
        """Return the layer with the average for its parameters, to evaluate or to export it.

        The average is converted to the dtypes of the parameters; state is that of the layer.
        """
        average, params, rest = self._split()
        average = jax.tree.map(lambda mean, leaf: mean.astype(leaf.dtype), average, params)
        return _grad.merge(average, rest)

    def _split(self) -> tuple[Any, Any, Any]:
        """Return the average, the parameters, and the rest of the layer, all like the layer."""
        params, rest = _grad.partition(jax.tree.map(lambda x: x, self.layer))
        means = [self.shadow[path] for path in named_leaves(params)]
        return jax.tree.unflatten(jax.tree.structure(params), means), params, rest

    def _mixed(self, old: jax.Array, new: jax.Array) -> jax.Array:
        mixed = blended(wide(old), new.astype(wide(old).dtype), self.decay)
        mixed = lax.stop_gradient(mixed).astype(old.dtype)
        return mixed if self.every == 1 else lax.select(self.count == 0, mixed, old)


def _names_by_path(layer: Any) -> dict[str, Any]:
    """Return the logical names of the axes of the parameters of a layer."""
    found = named(_grad.partition(layer)[0])
    return {each.path: tuple(name for name in each.names if name != STACK) for each in found}


class LoRA(Layer):
    """A frozen Dense layer with a learned update of low rank.

        y = x @ kernel + bias + alpha / rank * (x @ down) @ up

    `kernel` and `bias` are state, so that no optimizer changes them. Source: Hu et al., LoRA:
    Low-Rank Adaptation of Large Language Models, 2021.

    Attributes:
        kernel: the kernel of the layer, `[in, out]`.
        bias: the bias of the layer, `[out]`, or None.
        down: `[in, rank]`.
        up: `[rank, out]`, zero at first.
        alpha: the scale of the update is `alpha / rank`.
        dtype: the dtype to compute in.
        axes: the logical names of input and output features, those of the layer.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> dense = ox.init(nn.Dense.of(2))(jax.random.key(0), jnp.ones(3))
        >>> adapted = ox.init(nn.LoRA.of(dense, 1))(jax.random.key(1), jnp.ones(3))
        >>> bool((adapted(jnp.ones(3)) == dense(jnp.ones(3))).all())
        True
        >>> list(adapted.params), adapted.merged()
        (['down', 'up'], Dense(kernel=f32[3,2], bias=f32[2]))
    """

    kernel: Float[Array, "in out"] = state(axes=lambda lora: lora.axes)
    bias: Float[Array, " out"] | None = state(axes=lambda lora: lora.axes[1:])
    down: Float[Array, "in rank"] = param(axes=lambda lora: (lora.axes[0], None))
    up: Float[Array, "rank out"] = param(axes=lambda lora: (None, lora.axes[1]))
    alpha: float = static(default=1.0)
    dtype: Any = static(default=None)
    axes: tuple[str | None, str | None] = static(default=("embed", "mlp"), repr=False)

    @classmethod
    def check(cls, dense: Any, rank: int, **options: Any) -> None:
        """Check that the rank is positive."""
        positive(cls.__name__, "rank", rank)

    @classmethod
    def initialize(
        cls,
        init_key: Any,
        in_spec: Any,
        dense: Any,
        rank: int,
        *,
        alpha: float = 1.0,
        down_init: Initializer = small,
    ) -> LayerParams:
        """Draw the parameters of the update.

        Args:
            init_key: a random key.
            in_spec: `[..., in]`.
            dense: a `Dense` layer, or a template of one.
            rank: of the update.
            alpha: the scale of the update is `alpha / rank`.
            down_init: draws `down`.
        """
        keys = jax.random.split(init_key)
        layer, infer = build(dense, keys[0], in_spec, "dense")
        out_spec = infer()
        if not isinstance(layer, Dense):
            raise TypeError(f"LoRA adapts a Dense layer, got {type(layer).__name__}.")
        size, features = layer.kernel.shape
        down = drawn(down_init, keys[1], (size, rank), layer.kernel.dtype)
        up = jnp.zeros((rank, features), layer.kernel.dtype)
        return LayerParams(
            {"down": down, "up": up},
            {"alpha": alpha, "dtype": layer.dtype, "axes": layer.axes},
            {"kernel": layer.kernel, "bias": layer.bias},
            out_spec,
        )

    def call(self, x: Float[Array, "... in"]) -> Float[Array, "... out"]:
        """Add the update to the output of the layer."""
        y = Dense(self.kernel, self.bias, self.dtype, self.axes)(x)
        x, down, up = computing(self.dtype, x, self.down, self.up)
        return y + (matmul(matmul(x, down), up) * self._scale()).astype(y.dtype)

    def merged(self) -> Dense:
        """Return the Dense layer that computes the same."""
        kernel = self.kernel + self.down @ self.up * self._scale()
        return Dense(kernel, self.bias, self.dtype, self.axes)

    def _scale(self) -> float:
        return self.alpha / self.down.shape[1]
