"""The arrays of models by path, from other libraries and to them."""

from oryxstate._weights._load import load_weights
from oryxstate._weights._save import save_weights, weights

__all__ = ["load_weights", "save_weights", "weights"]
