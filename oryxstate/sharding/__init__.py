"""oryxstate.sharding: where the arrays of a model are on the devices of a mesh."""

from oryxstate.sharding._make import make
from oryxstate.sharding._replicas import check_replicas
from oryxstate.sharding._report import Placement, Report
from oryxstate.sharding._rules import DATA_PARALLEL, FSDP, TENSOR_PARALLEL, Rules
from oryxstate.sharding._shardings import abstract, report

__all__ = [
    "DATA_PARALLEL",
    "FSDP",
    "TENSOR_PARALLEL",
    "Placement",
    "Report",
    "Rules",
    "abstract",
    "check_replicas",
    "make",
    "report",
]
