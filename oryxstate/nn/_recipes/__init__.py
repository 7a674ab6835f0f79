"""Mappings of weights between layers and their counterparts in other libraries."""

from oryxstate.nn._recipes._equinox import equinox_mapping
from oryxstate.nn._recipes._flax import flax_mapping
from oryxstate.nn._recipes._nnx import nnx_mapping
from oryxstate.nn._recipes._torch import torch_mapping

__all__ = ["equinox_mapping", "flax_mapping", "nnx_mapping", "torch_mapping"]
