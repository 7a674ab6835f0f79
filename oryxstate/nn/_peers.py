"""The names of other libraries for what `oryxstate.nn` has, for the error about a wrong name."""

from __future__ import annotations

import difflib
import sys
from typing import Any

_FUNCTION = (
    "relu relu6 gelu silu swish elu selu celu glu softmax log_softmax softplus leaky_relu "
    "log_sigmoid hard_tanh soft_sign mish"
)
FUNCTIONS = {name.replace("_", ""): f"jax.nn.{name}" for name in _FUNCTION.split()} | {
    "sigmoid": "jax.nn.sigmoid",
    "tanh": "jnp.tanh",
    "identity": "lambda x: x",
}
"""Plain functions, which stand in a chain as they are."""

LAYERS = {
    "linear": "Dense",
    "lineargeneral": "Einsum",
    "densegeneral": "Einsum",
    "sequential": "Serial",
    "chain": "Serial",
    "conv1d": "Conv",
    "conv2d": "Conv",
    "conv3d": "Conv",
    "convtranspose1d": "ConvTranspose",
    "convtranspose2d": "ConvTranspose",
    "convtranspose3d": "ConvTranspose",
    "batchnorm1d": "BatchNorm",
    "batchnorm2d": "BatchNorm",
    "batchnorm3d": "BatchNorm",
    "instancenorm2d": "InstanceNorm",
    "embed": "Embedding",
    "lstm": "LSTMCell",
    "gru": "GRUCell",
    "optimizedlstmcell": "LSTMCell",
    "multiheaddotproductattention": "MultiHeadAttention",
    "multiheadattention": "MultiHeadAttention",
    "selfattention": "MultiHeadAttention",
    "maxpool2d": "MaxPool",
    "avgpool2d": "AvgPool",
    "maxpool1d": "MaxPool",
    "avgpool1d": "AvgPool",
    "adaptiveavgpool2d": "AdaptiveAvgPool",
    "transformerencoderlayer": "TransformerBlock",
    "droppath": "DropPath",
    "stochasticdepth": "DropPath",
    "concat": "FanOut",
    "module": "Layer",
    "modulelist": "Serial",
    "prelu": "PReLU",
}
"""Layers, by their names there in lower case."""


def unknown(name: str) -> Any:
    """Raise for a name that `oryxstate.nn` does not have, with the one that it has instead."""
    raise AttributeError(f"module 'oryxstate.nn' has no attribute {name!r}.{_hint(name)}")


def _hint(name: str) -> str:
    low = name.lower().replace("_", "")
    if name.startswith("_"):
        return ""
    if low in FUNCTIONS:
        function = FUNCTIONS[low]
        return f" Functions stand in a chain as they are: `nn.Dense.of(64) >> {function}`."
    if low in LAYERS:
        return f" Here it is `nn.{LAYERS[low]}`."
    known = sys.modules["oryxstate.nn"].__all__
    same = [other for other in known if other.lower() == low]
    near = same or difflib.get_close_matches(name, known, n=1)
    return f" Did you mean `nn.{near[0]}`?" if near else ""
