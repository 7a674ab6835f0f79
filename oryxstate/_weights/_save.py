"""The weights of a model for other libraries."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from oryxstate._errors import CheckpointError
from oryxstate._extras import require
from oryxstate._tree import named_leaves
from oryxstate.mapping._convert import convert
from oryxstate.mapping._rule import Rule
from oryxstate.mapping._targets import check_has_value, is_weight


def weights(model: Any, mapping: Sequence[Rule] = ()) -> dict[str, np.ndarray]:
    """Return the arrays of a model by path, parameters and state, without random keys.

    Args:
        model: the model.
        mapping: rules that lead from its paths and layouts to others, such as
            `mapping.inverse(nn.torch_mapping(model))`.

    Raises:
        TypeError: for the spec of an array, naming its path.
        ValueError: if a rule matches nothing, or does not fit what it matches.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import mapping, nn
        >>> model = ox.init(nn.Dense.of(2))(jax.random.key(0), jnp.ones(3))
        >>> to_torch = mapping.inverse(nn.torch_mapping(model))
        >>> {path: x.shape for path, x in ox.weights(model, to_torch).items()}
        {'weight': (2, 3), 'bias': (2,)}
    """
    leaves = {path: leaf for path, leaf in named_leaves(model).items() if is_weight(leaf)}
    for path, leaf in leaves.items():
        check_has_value(path, leaf)
    return convert(leaves, mapping)


def save_weights(path: str | os.PathLike[str], model: Any, mapping: Sequence[Rule] = ()) -> None:
    """Write the arrays of a model into a safetensors file, which any library can read.

    The file appears whole, and is on the disk when this returns.

    Args:
        path: the file, which is replaced if it exists.
        model: the model.
        mapping: rules that lead from its paths and layouts to those of the file.

    Raises:
        CheckpointError: if it cannot be written; then the file is as it was.
        TypeError: for the spec of an array, naming its path.

    Examples:
        >>> import tempfile, jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> model = ox.init(nn.Dense.of(2))(jax.random.key(0), jnp.ones(3))
        >>> path = tempfile.mkdtemp() + "/model.safetensors"
        >>> ox.save_weights(path, model)
        >>> bool((ox.load_weights(model, path).kernel == model.kernel).all())
        True
    """
    final = Path(path).absolute()
    temporary = final.with_name(f".{final.name}-{os.getpid()}")
    arrays = {name: np.asarray(x, order="C") for name, x in weights(model, mapping).items()}
    save_file = require("safetensors.numpy", "train").save_file
    try:
        save_file(arrays, temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, final)
        folder = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except Exception as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(f"'{final}' was not written: {error}.") from error
