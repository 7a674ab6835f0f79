"""Linear layers other than `Dense`: einsum and bilinear forms."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from oryxstate._module._fields import param, static
from oryxstate._tree import make_array_spec
from oryxstate.nn._initializers import Initializer, drawn, zeros
from oryxstate.nn._layer import Layer, LayerParams, single
from oryxstate.nn._placed import along, bilinear, einsum
from oryxstate.nn._precision import check_names, computing, last, positive

glorot_of_pairs = jax.nn.initializers.glorot_uniform(in_axis=(0, 1), out_axis=2)


class _Axes(NamedTuple):
    """The letters of an equation `x,kernel->y`."""

    x: str
    kernel: str
    y: str

    @classmethod
    def of(cls, equation: str) -> _Axes:
        """Parse an equation. Only input and output may have an ellipsis."""
        letters = r"([A-Za-z]*(?:\.\.\.)?[A-Za-z]*)"
        found = re.fullmatch(f"{letters},([A-Za-z]+)->{letters}", equation.replace(" ", ""))
        if found is None or not cls(*found.groups()).complete:
            raise ValueError(
                "Einsum: `equation` must be of the form `x,kernel->y`, as '...d,dhk->...hk', with "
                "an ellipsis in both input and output or in neither, and each axis of the output "
                f"in one of the two operands, got {equation!r}."
            )
        return cls(*found.groups())

    @property
    def complete(self) -> bool:
        """Whether operands have all output axes, and both sides or neither an ellipsis."""
        dots = {"..." in self.x, "..." in self.y}
        return len(dots) == 1 and set(self.y) <= set(self.x + self.kernel)

    def initializer(self) -> Initializer:
        """Return Glorot's initializer; the fans are the kernel axes in only one of `x` and `y`."""
        places = {c: i for i, c in enumerate(self.kernel)}
        return jax.nn.initializers.glorot_uniform(
            in_axis=tuple(i for c, i in places.items() if c not in self.y),
            out_axis=tuple(i for c, i in places.items() if c in self.y and c not in self.x),
            batch_axis=tuple(i for c, i in places.items() if c in self.y and c in self.x),
        )

    def fit(self, x_shape: tuple[int, ...], shape: tuple[int, ...]) -> bool:
        """Return whether an input of this shape has the axes that a kernel of that shape needs."""
        lengths = dict(zip(self.kernel, shape, strict=True))
        first, dots, rest = self.x.partition("...")
        if len(x_shape) < len(first + rest) or (not dots and len(x_shape) > len(first)):
            return False
        known = [*zip(first, x_shape, strict=False)]
        known += zip(rest, x_shape[len(x_shape) - len(rest) :], strict=True)
        return all(lengths.setdefault(c, n) == n for c, n in known)


class Einsum(Layer):
    """`y = einsum(equation, x, kernel) + bias`.

    The bias has those axes of the output that are axes of the kernel.

    Attributes:
        kernel: of the given shape.
        bias: `[axes of the kernel in y...]` in the order of the output, or None.
        equation: `x,kernel->y`, in the notation of `jnp.einsum`.
        dtype: the dtype to compute in; that of input and parameters together if None.
        axes: the logical names of the axes of the kernel, for `oryxstate.shardings`; () for none.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> heads = nn.Einsum.of("...d,dhk->...hk", (8, 2, 4))
        >>> heads.spec(ox.ArraySpec((5, 8)))
        float32[5,2,4]
    """

    kernel: Float[Array, "..."] = param(axes=lambda einsum: einsum.axes or (...,))
    bias: Float[Array, "..."] | None = param(axes=lambda einsum: einsum._bias_axes)
    equation: str = static()
    dtype: Any = static(default=None)
    axes: tuple[str | None, ...] = static(default=(), repr=False)

    def _check_fields(self) -> None:
        self._check_axes(self.equation, self.axes)

    @classmethod
    def _check_axes(cls, equation: str, axes: Any) -> None:
        check_names(cls.__name__, axes, len(_Axes.of(equation).kernel) if axes else None)

    @property
    def _bias_axes(self) -> tuple[Any, ...]:
        """The logical names of the axes of the bias."""
        axes = _Axes.of(self.equation)
        names = dict(zip(axes.kernel, self.axes, strict=False))
        return tuple(names.get(c) for c in axes.y if c in axes.kernel)

    @classmethod
    def check(
        cls, equation: str, shape: tuple[int, ...], *, axes: tuple[Any, ...] = (), **options: Any
    ) -> None:
        """Check that the equation has two operands, and `shape` and `axes` fit the second one."""
        cls._check_axes(equation, axes)
        kernel = _Axes.of(equation).kernel
        positive(cls.__name__, "shape", *shape)
        if len(kernel) != len(shape) or len(set(kernel)) < len(kernel):
            raise ValueError(
                f"Einsum: `shape` must have one length for each of the kernel's different axes in "
                f"{equation!r}, {kernel!r}, got {shape!r}."
            )

    @classmethod
    def initialize(
        cls,
        init_key: Any,
        in_spec: Any,
        equation: str,
        shape: tuple[int, ...],
        *,
        use_bias: bool = True,
        kernel_init: Initializer | None = None,
        bias_init: Initializer = zeros,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        axes: tuple[str | None, ...] = (),
    ) -> LayerParams:
        """Draw the parameters.

        Args:
            init_key: a random key.
            in_spec: an input that fits the first operand of the equation.
            equation: `x,kernel->y`.
            shape: of the kernel.
            use_bias: whether there is a bias.
            kernel_init: draws the kernel, `(key, shape, dtype) -> array`; by default Glorot's, with
                the summed axes as fan-in and the new axes as fan-out.
            bias_init: draws the bias.
            dtype: the dtype to compute in.
            param_dtype: the dtype of the parameters.
            axes: the logical names of the axes of the kernel, such as `("embed", "heads", None)`.
        """
        letters, shape = _Axes.of(equation), tuple(shape)
        if not letters.fit(single(cls, in_spec).shape, shape):
            raise cls.wrong_input(_described(letters, shape), in_spec)
        keys = jax.random.split(init_key)
        kernel = (kernel_init or letters.initializer())(keys[0], shape, param_dtype)
        lengths = [shape[letters.kernel.index(c)] for c in letters.y if c in letters.kernel]
        bias = bias_init(keys[1], lengths, param_dtype) if use_bias else None
        info = {"equation": equation, "dtype": dtype, "axes": axes}
        return LayerParams(params={"kernel": kernel, "bias": bias}, info=info)

    def call(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Evaluate the equation and add the bias."""
        axes, shape = _Axes.of(self.equation), self.kernel.shape
        self.check_input(axes.fit(x.shape, shape), _described(axes, shape), x)
        x, kernel, bias = computing(self.dtype, x, self.kernel, self.bias)
        y = einsum(self.equation, x, kernel)
        if bias is None:
            return y
        absent = _absent(axes, y.ndim)
        bias = along(bias, y, tuple(i for i in range(y.ndim) if i not in absent))
        return y + jnp.expand_dims(bias, absent)


def _described(axes: _Axes, shape: tuple[int, ...]) -> str:
    lengths = {c: str(n) for c, n in zip(axes.kernel, shape, strict=True)}
    names: list[str] = re.findall(r"\.\.\.|.", axes.x)
    return f"[{', '.join(lengths.get(c, c) for c in names)}]"


def _absent(axes: _Axes, ndim: int) -> tuple[int, ...]:
    """Return the axes of an output of rank `ndim` that the kernel does not have."""
    first, dots, rest = axes.y.partition("...")
    names = [*first, *dots[:1] * (ndim - len(first + rest)), *rest]
    return tuple(i for i, c in enumerate(names) if c not in axes.kernel)


class Bilinear(Layer):
    """`y_k = x1^T kernel_k x2 + bias_k`, over the last axes of two inputs.

    The inputs are two arguments, or the members of a single tuple; their other axes are the same.

    Attributes:
        kernel: `[in1, in2, features]`.
        bias: `[features]`, or None.
        dtype: the dtype to compute in; that of inputs and parameters together if None.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> x1, x2 = jnp.ones(3), jnp.ones(4)
        >>> ox.init(nn.Bilinear.of(2))(jax.random.key(0), x1, x2)(x1, x2).shape
        (2,)
    """

    kernel: Float[Array, "in1 in2 features"] = param(axes=("embed", None, "mlp"))
    bias: Float[Array, " features"] | None = param(axes=("mlp",))
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
        use_bias: bool = True,
        kernel_init: Initializer = glorot_of_pairs,
        bias_init: Initializer = zeros,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
    ) -> LayerParams:
        """Draw the parameters. The arguments are those of `Dense`, for two inputs."""
        if not _are_pair(in_spec):
            raise cls.wrong_input("two arrays, [..., in1] and [..., in2]", in_spec)
        first, second = in_spec
        keys = jax.random.split(init_key)
        shape = first.shape[-1], second.shape[-1], features
        kernel = drawn(kernel_init, keys[0], shape, param_dtype)
        bias = bias_init(keys[1], (features,), param_dtype) if use_bias else None
        return LayerParams(params={"kernel": kernel, "bias": bias}, info={"dtype": dtype})

    def call(self, *inputs: Any) -> Float[Array, "... features"]:
        """Evaluate the bilinear form of each feature."""
        pair = inputs[0] if len(inputs) == 1 else inputs
        sizes, specs = self.kernel.shape[:2], make_array_spec(pair)
        fits = _are_pair(specs) and tuple(s.shape[-1] for s in specs) == sizes
        self.check_input(fits, f"two arrays, [..., {sizes[0]}] and [..., {sizes[1]}]", specs)
        first, second, kernel, bias = computing(self.dtype, *pair, self.kernel, self.bias)
        y = bilinear(first, second, kernel)
        return y if bias is None else y + last(bias, y)


def _are_pair(specs: Any) -> bool:
    return (
        isinstance(specs, tuple)
        and len(specs) == 2
        and all(hasattr(s, "shape") and s.ndim > 0 for s in specs)
        and specs[0].shape[:-1] == specs[1].shape[:-1]
    )
