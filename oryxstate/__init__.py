"""oryxstate: JAX models as frozen dataclasses whose state threads itself."""

from typing import TYPE_CHECKING

from oryxstate._annotations._setting import check_annotations
from oryxstate._api import call, call_and_update, init, spec, update
from oryxstate._batch import batch_call, batch_call_and_update, per_example
from oryxstate._capture._captured import Captured, capture, sow
from oryxstate._capture._intercepted import Site, intercept
from oryxstate._effects._sown import Maybe
from oryxstate._errors import AnnotationError, CheckpointError, EffectError, MismatchError
from oryxstate._functions import FunctionModule, assign, variable
from oryxstate._grad import grad, merge, partition, value_and_grad
from oryxstate._module._base import Module
from oryxstate._module._fields import param, state, static
from oryxstate._module._live import snapshot
from oryxstate._module._takes import keywords
from oryxstate._step import Flat, Step, step
from oryxstate._tree import ArraySpec, Shape, make_array_spec, named_leaves
from oryxstate._version import __version__ as __version__

from oryxstate import _batched, _containers, _lazy, _releases  # isort: skip  (the first two register themselves)
from oryxstate._module import _hook

_hook.shown_by(_lazy.Lazy("oryxstate._look._shown"))
_releases.check_after_the_import(lambda: _lazy.Lazy("oryxstate._selftest").wrong())

if TYPE_CHECKING:
    from oryxstate import checkpoint, mapping, nn, select, sharding
    from oryxstate._capture._nonfinite import Nonfinite, find_nonfinite
    from oryxstate._look._diff import Diff, Difference, diff
    from oryxstate._look._summary import Row, Summary, summary
    from oryxstate._weights import load_weights, save_weights, weights
    from oryxstate.sharding._shardings import shardings
else:  # the same, each imported when it is first used
    __getattr__, __dir__ = _lazy.attributes(
        __name__,
        {
            "oryxstate.checkpoint": (),
            "oryxstate.mapping": (),
            "oryxstate.nn": (),
            "oryxstate.select": (),
            "oryxstate.sharding": (),
            "oryxstate._capture._nonfinite": ("Nonfinite", "find_nonfinite"),
            "oryxstate._look._diff": ("Diff", "Difference", "diff"),
            "oryxstate._look._summary": ("Row", "Summary", "summary"),
            "oryxstate.sharding._shardings": ("shardings",),
            "oryxstate._weights": ("load_weights", "save_weights", "weights"),
        },
    )

__all__ = [
    "AnnotationError",
    "ArraySpec",
    "Captured",
    "CheckpointError",
    "Diff",
    "Difference",
    "EffectError",
    "Flat",
    "FunctionModule",
    "Maybe",
    "MismatchError",
    "Module",
    "Nonfinite",
    "Row",
    "Shape",
    "Site",
    "Step",
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
    "step",
    "summary",
    "update",
    "value_and_grad",
    "variable",
    "weights",
]

del TYPE_CHECKING, _batched, _containers, _hook, _lazy, _releases
