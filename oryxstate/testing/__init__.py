"""Property-based tests of models: strategies, laws, a pytest plugin."""

from oryxstate.testing._adapters import Adapted, Functions, adapt
from oryxstate.testing._arrays import array_specs, arrays, keys, pytrees
from oryxstate.testing._catalogue import TemplateExample
from oryxstate.testing._check import check_module
from oryxstate.testing._decorator import laws
from oryxstate.testing._dimensions import Sizes
from oryxstate.testing._drawn import cases
from oryxstate.testing._inputs import inputs
from oryxstate.testing._laws import LAWS, LAWS_2026_11, Case, LawError, NotApplicable
from oryxstate.testing._matrix import jax_matrix
from oryxstate.testing._modules import modules
from oryxstate.testing._shown import code, rebuild
from oryxstate.testing._templates import templates
from oryxstate.testing._values import values
from oryxstate.testing._verdicts import Report

__all__ = [
    "LAWS",
    "LAWS_2026_11",
    "Adapted",
    "Case",
    "Functions",
    "LawError",
    "NotApplicable",
    "Report",
    "Sizes",
    "TemplateExample",
    "adapt",
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
