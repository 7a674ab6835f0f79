"""oryxstate.nn: layers, and templates of them that see their input's shape."""

from oryxstate.nn._combinators import Branch, FanOut, Flatten, Parallel, Reshape, Residual, Serial
from oryxstate.nn._layer import Layer, LayerParams
from oryxstate.nn._linear import Dense
from oryxstate.nn._noise import Dropout
from oryxstate.nn._norm import BatchNorm
from oryxstate.nn._parts import Lambda
from oryxstate.nn._repeat import Repeat, Shared
from oryxstate.nn._template import Template
from oryxstate.nn._wrappers import EMA, LoRA

__all__ = [
    "EMA",
    "BatchNorm",
    "Branch",
    "Dense",
    "Dropout",
    "FanOut",
    "Flatten",
    "Lambda",
    "Layer",
    "LayerParams",
    "LoRA",
    "Parallel",
    "Repeat",
    "Reshape",
    "Residual",
    "Serial",
    "Shared",
    "Template",
]
