"""The transposed convolution."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from oryxstate.nn._conv import WithFeatures
from oryxstate.nn._windows import Pads, shape_of


class ConvTranspose(WithFeatures):
    """Transpose a convolution: spread each input element over a window of the output.

        y[j, o] = sum over i, k, c of x[i, c] * kernel[k, c, o] + bias[o]

    over all `i`, `k` with `i * strides + (reach - 1 - k * dilation) - before == j`. Like
    `jax.lax.conv_transpose`, it does not flip the kernel (PyTorch and Keras do). `padding` is that
    of the convolution from output to input. Along an axis there are

        n * strides                                 places with "SAME" and "CIRCULAR",
        n * strides + max(reach - strides, 0)       with "VALID",
        (n - 1) * strides + reach - before - after  with numbers.

    (With jaxlib 0.10.2, XLA can abort the process when it compiles gradients of a dilated kernel;
    `jax.lax.conv_transpose` alone does the same.)
    Sources: Zeiler et al., Deconvolutional Networks, 2010; Dumoulin and Visin, A guide to
    convolution arithmetic for deep learning, 2016.

    Attributes:
        kernel: `[*kernel_size, in / groups, out]`.
        bias: `[out]`, or None.
        strides: the number of output places for one input place.
        padding: "SAME", "VALID", "CIRCULAR", an integer, or (before, after) of each spatial axis.
        dilation: the steps from one element of the kernel to the next.
        groups: the number of groups of channels.
        dtype: the dtype to compute in; that of input and parameters together if None.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from oryxstate import nn
        >>> nn.ConvTranspose.of(3, (4, 4), strides=2, padding="SAME").spec(jnp.ones((4, 4, 16)))
        float32[8,8,3]
    """

    def _has_room(self, spatial: tuple[int, ...]) -> bool:
        """Return whether the padding leaves any output."""
        windows = self._windows
        sizes = zip(spatial, self._pads(), windows.strides, windows.reach, strict=True)
        return min(spatial) > 0 and all(
            (n - 1) * stride + low + high >= reach - 1 for n, (low, high), stride, reach in sizes
        )

    def _room(self, channels: int) -> str:
        shape = shape_of(self.kernel.ndim - 2, channels)
        return f"{shape} of which padding {self._windows.padding} leaves any"

    def _pads(self) -> Pads:
        """Return the pads of the dilated input along each axis; negative pads crop it."""
        windows = self._windows
        if isinstance(windows.padding, str):
            sizes = zip(windows.reach, windows.strides, strict=True)
            return tuple(_pads_of(windows.padding, *size) for size in sizes)
        sizes = zip(windows.reach, windows.padding, strict=True)
        return tuple((reach - 1 - low, reach - 1 - high) for reach, (low, high) in sizes)

    def _convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """Return the output without the bias."""
        pads, spacing = self._pads(), self._windows.strides
        if self.padding == "CIRCULAR":
            # The elements of the next period, one for each stride, with zeros between them.
            sizes = list(zip(pads, spacing, strict=True))
            around = [(low // step, high // step) for (low, high), step in sizes]
            x = jnp.pad(x, (*around, (0, 0)), mode="wrap")
            pads = tuple((low % step, high % step) for (low, high), step in sizes)
        return self._slide(x, kernel, pads, (1,) * len(pads), spacing)


def _pads_of(padding: str, reach: int, stride: int) -> tuple[int, int]:
    """Compute pads like `jax.lax.conv_transpose`, which does not support groups."""
    if padding == "VALID":
        return reach - 1, max(reach, stride) - 1
    total = reach + stride - 2
    low = min(reach - 1, -(-total // 2))
    return low, total - low
