"""Weights from elsewhere: safetensors files, nested dictionaries, modules of other libraries."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from oryxstate._errors import CheckpointError
from oryxstate._extras import require
from oryxstate._tree import is_array, is_spec, named_leaves
from oryxstate.mapping._targets import is_keys

# Those that NumPy lacks, and that ml_dtypes, a dependency of JAX, gives it.
_DTYPES = {
    "BOOL": "bool",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    "C64": "complex64",
}


def read(source: Any) -> tuple[dict[str, np.ndarray], str]:
    """Return arrays by path, without random keys, and how to call their source in errors.

    Those of a file are read when they are used.
    """
    if isinstance(source, str | os.PathLike):
        return _safetensors(Path(source)), f"'{source}'"
    if isinstance(source, Mapping):
        return _nested(source), "the dictionary"
    leaves = named_leaves(source).items()
    found = {path: np.asarray(leaf) for path, leaf in leaves if _is_value(leaf)}
    return found, type(source).__name__


def _is_value(leaf: Any) -> bool:
    return is_array(leaf) and not is_spec(leaf) and not is_keys(leaf)


def _nested(source: Mapping[Any, Any], above: str = "") -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for key, value in source.items():
        path = f"{above}.{key}" if above else str(key)
        if isinstance(value, Mapping):
            found |= _nested(value, path)
            continue
        if is_keys(value):
            continue
        array = np.asarray(value)
        if array.dtype.hasobject or array.dtype.kind in "USMm":
            raise TypeError(f"'{path}' is not an array: {type(value).__name__}.")
        if path in found:
            raise ValueError(f"two arrays of the dictionary have the path '{path}'.")
        found[path] = array
    return found


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    """Map a file into memory, whose header safetensors has checked."""
    safetensors = require("safetensors", "train")
    try:
        with safetensors.safe_open(path, "np"):
            pass
    except FileNotFoundError:
        raise
    except Exception as error:
        raise CheckpointError(f"'{path}' is not a whole safetensors file: {error}.") from error
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    data = np.memmap(path, mode="r") if header else None
    return {name: _view(path, name, data, 8 + length, entry) for name, entry in header.items()}


def _view(path: Path, name: str, data: Any, at: int, entry: Mapping[str, Any]) -> np.ndarray:
    if entry["dtype"] not in _DTYPES:
        raise CheckpointError(f"'{path}' has '{name}' of dtype {entry['dtype']}, unknown here.")
    start, end = entry["data_offsets"]
    part = np.asarray(data[at + start : at + end])
    return part.view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
