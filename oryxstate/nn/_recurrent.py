"""The base class of recurrent cells, and what cells with dense gates share."""

from __future__ import annotations

import abc
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from oryxstate._module._fields import param, state, static
from oryxstate.nn._initializers import Initializer, drawn, lecun, orthogonal, zeros
from oryxstate.nn._layer import Layer, LayerParams, single
from oryxstate.nn._placed import matmul
from oryxstate.nn._precision import computing, last, positive, wide, wide_dtype


class RecurrentCell(Layer):
    """A recurrent cell: one step from a carry and an input to the next carry and an output.

    `step` is a function of an explicit carry. A call reads the carry from state and writes it back,
    so that consecutive calls, in a Python loop or in `lax.scan`, are consecutive steps, and
    gradients flow from step to step. Subclass it, and write `initialize`, `step` and `zero_carry`;
    `initialize` gives the state its first value.

    Attributes:
        carry: the carry that the last call left, a pytree of arrays; zeros at first.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> class Sum(nn.RecurrentCell):
        ...     @classmethod
        ...     def initialize(cls, init_key, in_spec):
        ...         return nn.LayerParams(state={"carry": jnp.array(0.0)})
        ...     def zero_carry(self):
        ...         return jnp.array(0.0)
        ...     def step(self, carry, x):
        ...         return carry + x, carry + x
        >>> cell = ox.init(Sum.of())(jax.random.key(0), 1.0)
        >>> y, cell = cell.call_and_update(2.0)
        >>> float(cell(3.0))
        5.0
    """

    carry: Any = state(kw_only=True)

    @abc.abstractmethod
    def zero_carry(self) -> Any:
        """Return the carry before the first step."""

    @abc.abstractmethod
    def step(self, carry: Any, x: Any) -> tuple[Any, Any]:
        """Return the next carry, and the output."""

    def call(self, x: Any) -> Any:
        """Make one step from the stored carry."""
        carry, y = self.step(self.carry, x)
        self.assign(carry=carry)
        return y


class Gated(RecurrentCell):
    """A cell with dense gates, whose kernels are concatenated along the last axis."""

    gates: ClassVar[int]

    kernel: Float[Array, "in gates"] = param(axes=("embed", "gates"))
    recurrent_kernel: Float[Array, "features gates"] = param(axes=("hidden", "gates"))
    bias: Float[Array, " gates"] = param(axes=("gates",))
    dtype: Any = static(default=None)

    @classmethod
    def check(cls, features: int, **options: Any) -> None:
        """Check that the number of features is positive."""
        positive(cls.__name__, "features", features)

    @classmethod
    def initialize(
        cls,
        init_key: Any,
        in_spec: Any,
        features: int,
        *,
        kernel_init: Initializer = lecun,
        recurrent_init: Initializer = orthogonal,
        bias_init: Initializer = zeros,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
    ) -> LayerParams:
        """Draw the parameters, separately for each gate; the carry is zero.

        Args:
            init_key: a random key.
            in_spec: of the input of one step, `[in]`.
            features: the length of the carry and of the output.
            kernel_init: draws a kernel, `(key, shape, dtype) -> array`.
            recurrent_init: draws a recurrent kernel.
            bias_init: draws the biases.
            dtype: the dtype to compute the gates in.
            param_dtype: the dtype of the parameters; the carry is float32 if it is narrower, since
                it accumulates over steps.
        """
        if single(cls, in_spec).ndim != 1:
            raise cls.wrong_input("[in], the input of one step", in_spec)
        keys, gates = jax.random.split(init_key, 4), cls.gates
        kernel = _side_by_side(kernel_init, keys[0], in_spec.shape[0], features, gates, param_dtype)
        recurrent = _side_by_side(recurrent_init, keys[1], features, features, gates, param_dtype)
        bias = bias_init(keys[2], (gates * features,), param_dtype)
        return LayerParams(
            params={
                "kernel": kernel,
                "recurrent_kernel": recurrent,
                "bias": bias,
                **cls._more(lambda shape: bias_init(keys[3], shape, param_dtype), features),
            },
            info={"dtype": dtype},
            state={"carry": jax.tree.map(wide, cls._zeros(features, param_dtype))},
        )

    @classmethod
    def _more(cls, bias_init: Any, features: int) -> dict[str, Any]:
        """Return further parameters."""
        return {}

    @classmethod
    def _zeros(cls, features: int, dtype: Any) -> Any:
        return jnp.zeros(features, dtype)

    def zero_carry(self) -> Any:
        """Return zeros in the dtype of the parameters, float32 at least."""
        zeros = self._zeros(self.recurrent_kernel.shape[0], self.recurrent_kernel.dtype)
        return jax.tree.map(wide, zeros)

    def _sums(self, hidden: jax.Array, x: jax.Array) -> tuple[list[jax.Array], list[jax.Array]]:
        """Return what input and hidden state contribute to each gate, in the computing dtype."""
        size = self.kernel.shape[0]
        self.check_input(jnp.shape(x) == (size,), f"[{size}], the input of one step", x)
        x, kernel, bias, recurrent = computing(
            self.dtype, x, self.kernel, self.bias, self.recurrent_kernel
        )
        hidden = hidden.astype(x.dtype)
        split = functools.partial(jnp.split, indices_or_sections=self.gates)
        inputs = matmul(x, kernel)
        return split(inputs + last(bias, inputs)), split(matmul(hidden, recurrent))


def _side_by_side(
    initializer: Initializer, key: Any, rows: int, features: int, gates: int, dtype: Any
) -> jax.Array:
    # Narrower dtypes are drawn in float32, since JAX draws no orthogonal matrices in bfloat16.
    shape, exact = (rows, features), wide_dtype(dtype)
    kernels = [drawn(initializer, k, shape, exact) for k in jax.random.split(key, gates)]
    return jnp.concatenate(kernels, axis=-1).astype(dtype)
