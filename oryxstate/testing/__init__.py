"""Property-based tests of models: strategies, laws, a pytest plugin."""

from oryxstate.testing._arrays import array_specs, arrays, keys, pytrees
from oryxstate.testing._catalogue import TemplateExample
from oryxstate.testing._check import Report, check_module
from oryxstate.testing._decorator import laws
from oryxstate.testing._dimensions import Sizes
from oryxstate.testing._drawn import cases
from oryxstate.testing._inputs import inputs
from oryxstate.testing._laws import LAWS, Case, LawError, NotApplicable
from oryxstate.testing._matrix import jax_matrix
from oryxstate.testing._modules import modules
from oryxstate.testing._shown import code, rebuild
from oryxstate.testing._templates import templates
from oryxstate.testing._values import values

__all__ = [
    "LAWS",
    "Case",
    "LawError",
    "NotApplicable",
    "Report",
    "Sizes",
    "TemplateExample",
    "array_specs",
    "arrays",
    "cases",
    "check_module",
    "code",
    "inputs",
    "jax_matrix",
    "keys",
    "laws",
    "modules",
    "pytrees",
    "rebuild",
    "templates",
    "values",
]
