"""oryxstate.mapping: rules that lead from the paths and layouts of a file to those of a model."""

from oryxstate.mapping._convert import convert
from oryxstate.mapping._groups import Merge, Share, Split, Stack, Sum, Unstack
from oryxstate.mapping._layouts import Flip, Reshape, Transpose
from oryxstate.mapping._match import Report
from oryxstate.mapping._rule import Add, Drop, Keep, Rename, Rule, inverse

__all__ = [
    "Add",
    "Drop",
    "Flip",
    "Keep",
    "Merge",
    "Rename",
    "Report",
    "Reshape",
    "Rule",
    "Share",
    "Split",
    "Stack",
    "Sum",
    "Transpose",
    "Unstack",
    "convert",
    "inverse",
]
