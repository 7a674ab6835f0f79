"""oryxstate: JAX models as frozen dataclasses whose state threads itself."""

from oryxstate._annotations._setting import check_annotations
from oryxstate._api import call, call_and_update, init, spec, update
from oryxstate._batch import batch_call, batch_call_and_update, per_example
from oryxstate._errors import AnnotationError, EffectError
from oryxstate._functions import FunctionModule, assign, variable
from oryxstate._grad import grad, merge, partition, value_and_grad
from oryxstate._module._base import Module
from oryxstate._module._fields import param, state, static
from oryxstate._module._live import snapshot
from oryxstate._module._takes import keywords
from oryxstate._tree import ArraySpec, Shape, make_array_spec, named_leaves

from oryxstate import _batched, _containers, nn  # isort: skip  (the first two register themselves)
from oryxstate import _releases, _selftest

_releases.check_after_the_import(_selftest.wrong)

__all__ = [
    "AnnotationError",
    "ArraySpec",
    "EffectError",
    "FunctionModule",
    "Module",
    "Shape",
    "assign",
    "batch_call",
    "batch_call_and_update",
    "call",
    "call_and_update",
    "check_annotations",
    "grad",
    "init",
    "keywords",
    "make_array_spec",
    "merge",
    "named_leaves",
    "nn",
    "param",
    "partition",
    "per_example",
    "snapshot",
    "spec",
    "state",
    "static",
    "update",
    "value_and_grad",
    "variable",
]

del _batched, _containers, _releases, _selftest
