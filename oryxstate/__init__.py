"""oryxstate: JAX models as frozen dataclasses whose state threads itself."""

from oryxstate._annotations._setting import check_annotations
from oryxstate._api import call, call_and_update, init, spec, update
from oryxstate._batch import batch_call, batch_call_and_update, per_example
from oryxstate._capture._captured import Captured, capture, sow
from oryxstate._capture._intercepted import Site, intercept
from oryxstate._capture._nonfinite import Nonfinite, find_nonfinite
from oryxstate._effects._sown import Maybe
from oryxstate._errors import AnnotationError, CheckpointError, EffectError, MismatchError
from oryxstate._functions import FunctionModule, assign, variable
from oryxstate._grad import grad, merge, partition, value_and_grad
from oryxstate._look._diff import Diff, Difference, diff
from oryxstate._look._summary import Row, Summary, summary
from oryxstate._module._base import Module
from oryxstate._module._fields import param, state, static
from oryxstate._module._live import snapshot
from oryxstate._module._takes import keywords
from oryxstate._tree import ArraySpec, Shape, make_array_spec, named_leaves
from oryxstate.sharding import shardings
from oryxstate.weights import load_weights, save_weights, weights

from oryxstate import _batched, _containers, checkpoint, mapping, nn, select, sharding  # isort: skip  (the first two register themselves)
from oryxstate import _releases, _selftest

_releases.check_after_the_import(_selftest.wrong)

__all__ = [
    "AnnotationError",
    "ArraySpec",
    "Captured",
    "CheckpointError",
    "Diff",
    "Difference",
    "EffectError",
    "FunctionModule",
    "Maybe",
    "MismatchError",
    "Module",
    "Nonfinite",
    "Row",
    "Shape",
    "Site",
    "Summary",
    "assign",
    "batch_call",
    "batch_call_and_update",
    "call",
    "call_and_update",
    "capture",
    "check_annotations",
    "checkpoint",
    "diff",
    "find_nonfinite",
    "grad",
    "init",
    "intercept",
    "keywords",
    "load_weights",
    "make_array_spec",
    "mapping",
    "merge",
    "named_leaves",
    "nn",
    "param",
    "partition",
    "per_example",
    "save_weights",
    "select",
    "sharding",
    "shardings",
    "snapshot",
    "sow",
    "spec",
    "state",
    "static",
    "summary",
    "update",
    "value_and_grad",
    "variable",
    "weights",
]

del _batched, _containers, _releases, _selftest
