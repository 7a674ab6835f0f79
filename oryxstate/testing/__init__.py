"""Property-based tests of models: strategies, laws, a pytest plugin."""

from oryxstate.testing._arrays import array_specs, arrays, keys, pytrees
from oryxstate.testing._catalogue import TemplateExample
from oryxstate.testing._dimensions import Sizes
from oryxstate.testing._inputs import inputs
from oryxstate.testing._modules import modules
from oryxstate.testing._shown import code, rebuild
from oryxstate.testing._templates import templates
from oryxstate.testing._values import values

__all__ = [
    "Sizes",
    "TemplateExample",
    "array_specs",
    "arrays",
    "code",
    "inputs",
    "keys",
    "modules",
    "pytrees",
    "rebuild",
    "templates",
    "values",
]
