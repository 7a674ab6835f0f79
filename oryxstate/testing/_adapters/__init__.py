"""Adapters, one for each way of writing a model: they show its arrays and its call to the laws.

None of the libraries is imported here but Equinox, which oryxstate rests on: `when_imported`
registers an adapter when the library has been imported by somebody else.
"""

from oryxstate.testing._adapters import _flax, _haiku, _optax, _pytrees
from oryxstate.testing._adapters._adapted import (
    KINDS,
    Adapted,
    ChangedInPlace,
    Kind,
    NoAdapter,
    adapt,
    is_adapted,
)
from oryxstate.testing._adapters._functions import Functions

del _flax, _haiku, _optax, _pytrees  # imported for the adapters that they register

__all__ = [
    "KINDS",
    "Adapted",
    "ChangedInPlace",
    "Functions",
    "Kind",
    "NoAdapter",
    "adapt",
    "is_adapted",
]
