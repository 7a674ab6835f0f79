"""A single checkpoint in a folder of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from oryxstate._errors import CheckpointError
from oryxstate.checkpoint import _disk, _folder
from oryxstate.checkpoint._snapshot import snapshot
from oryxstate.mapping._match import Report
from oryxstate.mapping._rule import Rule

T = TypeVar("T")


def save(
    folder: str | os.PathLike[str], tree: Any, *, metrics: Mapping[str, Any] | None = None
) -> None:
    """Write a checkpoint of a pytree, and return when it is on the disk.

    Args:
        folder: the folder to make, which does not exist yet.
        tree: a pytree of modules, optimizer states, arrays, random keys, and Python numbers,
            booleans, str and bytes.
        metrics: numbers to keep with it.

    Raises:
        CheckpointError: if it cannot be written; then there is no such folder.
        TypeError: for a leaf that a checkpoint cannot hold, naming its path, or for a metric that
            is not a number.

    Examples:
        >>> import tempfile, jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> folder = tempfile.mkdtemp() + "/model"
        >>> ox.checkpoint.save(folder, {"scale": jnp.ones(2), "step": 7})
        >>> ox.checkpoint.restore(folder, into={"scale": jax.ShapeDtypeStruct((2,), "float32"),
        ...                                     "step": 0})
        {'scale': Array([1., 1.], dtype=float32), 'step': 7}
    """
    path = Path(folder).absolute()
    if path.exists():
        raise CheckpointError(f"'{path}' exists: give another name, or remove it first.")
    taken, given = snapshot(tree), numbers(metrics)
    with failing(f"'{path}' was not saved"):
        _disk.make_folder(path.parent)
        _folder.write(path, taken, given)


def restore(
    folder: str | os.PathLike[str],
    into: T,
    *,
    select: Any = None,
    mapping: Sequence[Rule] = (),
    report: Callable[[Report], Any] | None = None,
) -> T:
    """Read a checkpoint into a pytree like another.

    No code from the files is run. Everything is compared before an array is read.

    Args:
        folder: the folder.
        into: a pytree of the same paths, best of `jax.ShapeDtypeStruct` (from `jax.eval_shape`), so
            that no memory is used for it. An array comes out with the dtype and sharding that
            `into` has, and of the same kind: of JAX for JAX and for a spec, of NumPy for NumPy, a
            Python number for a Python number. Dtypes may differ among floats, among complex
            numbers, and among integers.
        select: which leaves to restore, a predicate on paths or a selection (an object with a
            method `paths(model)`); the others stay as they are in `into`.
        mapping: rules that lead from the saved paths to those of `into` (`oryxstate.mapping`).
        report: called with a `mapping.Report` of what was restored, such as `print`.

    Returns:
        A pytree of the structure of `into`.

    Raises:
        MismatchError: listing every path that is missing, left over, or of another shape or dtype.
        CheckpointError: if there is no whole checkpoint there.
        ValueError: if a rule or the selection matches nothing.
    """
    tree, done = _folder.read(Path(folder).absolute(), into, select=select, rules=mapping)
    if report is not None:
        report(done)
    return tree


def numbers(metrics: Mapping[str, Any] | None) -> dict[str, float]:
    """Return metrics as Python floats.

    Raises:
        TypeError: for a metric that is not a number, naming it.
    """
    found = {}
    for name, value in (metrics or {}).items():
        try:
            found[name] = float(value)
        except (TypeError, ValueError):
            raise TypeError(f"the metric '{name}' is not a number: {value!r}") from None
    return found


class failing:
    """Raise what went wrong in a block as a `CheckpointError` that begins with a text."""

    def __init__(self, text: str):
        self.text = text

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, CheckpointError | ImportError):
            raise CheckpointError(
                f"{self.text}: {type(error).__name__}: {error}. Nothing that was saved before has "
                "changed."
            ) from error
