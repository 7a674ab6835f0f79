"""oryxstate.weights: the arrays of models by path, from other libraries and to them."""

from oryxstate.weights._load import load_weights
from oryxstate.weights._save import save_weights, weights

__all__ = ["load_weights", "save_weights", "weights"]
