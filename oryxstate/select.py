"""Selections of leaves: by path, field, class, kind or predicate, and what combines them.

A selection says which leaves of a model are meant, wherever that has to be said: what to train
(`oryxstate.partition`, `oryxstate.grad`), masks and labels for optax, and `model.at[selection]`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from oryxstate._select._changes import At, Selected
from oryxstate._select._places import places
from oryxstate._select._selection import (
    Field,
    Instances,
    Path,
    Selection,
    Where,
    params,
    selection,
    state,
    static,
)

__all__ = [
    "At",
    "Selected",
    "Selection",
    "at",
    "field",
    "instances",
    "labels",
    "params",
    "path",
    "state",
    "static",
    "where",
]


def path(*patterns: str) -> Selection:
    """Select by path, as `oryxstate.named_leaves` writes it.

    A pattern that names a module or a container selects everything in it.

    Args:
        *patterns: paths, in which `*` stands for one key or a part of a name, `?` for one
            character, `**` for any number of keys, `[2:5]` for indices of a list or tuple. A key of
            a dictionary may be written as a name: `a.b` finds `a['b']` too.

    Raises:
        ValueError: if a bracket is not closed or a key is empty.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn, select
        >>> chain = nn.Dense.of(4) >> nn.Dense.of(4) >> nn.Dense.of(2)
        >>> model = ox.init(chain)(jax.random.key(0), jnp.ones(3))
        >>> select.path("layers[:2].kernel", "layers[2]").paths(model)
        ['layers[0].kernel', 'layers[1].kernel', 'layers[2].kernel', 'layers[2].bias']
        >>> select.path("layer[0]").paths(model)
        Traceback (most recent call last):
            ...
        ValueError: nothing is selected by select.path('layer[0]'). Did you mean 'layers[0]'?
    """
    if not patterns:
        raise ValueError("`select.path` takes at least one pattern, such as 'encoder.**.kernel'.")
    return Path(patterns)


def field(*names: str) -> Selection:
    """Select what is in fields of these names, or inside what is in them, in modules of any class.

    The names of a function's variables and of a named tuple count as fields too.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn, select
        >>> stack = nn.Repeat.of(nn.Dense.of(3) >> nn.BatchNorm.of(), 5)
        >>> model = ox.init(stack)(jax.random.key(0), jnp.ones((8, 3)))
        >>> select.field("kernel").paths(model)
        ['layers.layers[0].kernel']
    """
    if not names:
        raise ValueError("`select.field` takes at least one name, such as 'kernel'.")
    return Field(names)


def instances(*classes: type) -> Selection:
    """Select what is in modules of these classes or their subclasses, at any depth.

    Wherever a selection is expected, a class stands for this.
    """
    if not classes:
        raise ValueError("`select.instances` takes at least one class, such as `nn.BatchNorm`.")
    return Instances(classes)


def where(function: Callable[[str, Any], Any]) -> Selection:
    """Select by a predicate.

    Args:
        function: called as `function(path, leaf)`, returns a bool. The leaf is an array, under
            `jax.jit` a traced one, or a `jax.ShapeDtypeStruct` in an abstract model. Where
            `select.static` occurs in the same selection, it is also asked about static values.

    Examples:
        >>> import jax.numpy as jnp
        >>> from oryxstate import select
        >>> tree = {"a": jnp.ones(2), "b": jnp.ones((2, 2))}
        >>> select.where(lambda path, x: x.ndim > 1).paths(tree)
        ["['b']"]
    """
    return Where(function)


def at(tree: Any) -> At[Any]:
    """Read and change parts of any pytree: `select.at(tree)[selection].set(0.0)`.

    Modules have it as an attribute, `model.at[selection]`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from oryxstate import select
        >>> select.at({"a": [jnp.ones(2)], "b": jnp.ones(2)})["a"].apply(jnp.sum)
        {'a': [Array(2., dtype=float32)], 'b': Array([1., 1.], dtype=float32)}
    """
    return At(tree)


def labels(default: str | None = None, /, **selections: Any) -> Callable[[Any], Any]:
    """Label leaves, as `optax.multi_transform` takes them.

    Args:
        default: the label of what no selection selects; without it that is an error.
        **selections: what gets each label: a selection, a path or a class.

    Returns:
        A function from a tree to a tree of labels. It raises a ValueError if a selection selects
        nothing, if two select the same leaf, or if a leaf has no label.

    Examples:
        >>> import jax, jax.numpy as jnp, optax
        >>> import oryxstate as ox
        >>> from oryxstate import nn, select
        >>> chain = nn.Dense.of(4) >> nn.Dense.of(2)
        >>> model = ox.init(chain)(jax.random.key(0), jnp.ones(3))
        >>> label = select.labels("fast", frozen="layers[0]", slow="layers[1].bias")
        >>> label(model).layers[1]
        Dense(kernel='fast', bias='slow')
        >>> transforms = {"fast": optax.adam(1e-2), "slow": optax.adam(1e-3)}
        >>> optimizer = optax.multi_transform({**transforms, "frozen": optax.set_to_zero()}, label)
    """
    chosen = {label: selection(given) for label, given in selections.items()}

    def label_leaves(tree: Any) -> Any:
        found: dict[str, str] = {}
        for label, each in chosen.items():
            for path in each.paths(tree):
                if path in found:
                    raise ValueError(
                        f"`{path}` gets two labels, {found[path]!r} and {label!r}. Take it out of "
                        f"one of them: `select.path(...) - {path!r}`."
                    )
                found[path] = label
        leaves = [place.path for place in places(tree) if place.is_leaf]
        without = [path for path in leaves if path not in found]
        if default is None and without:
            raise ValueError(
                f"{len(without)} leaves have no label, such as `{without[0]}`. Give a default, "
                "`select.labels('train', frozen=...)`."
            )
        return jax.tree.unflatten(
            jax.tree.structure(tree), [found.get(path, default) for path in leaves]
        )

    return label_leaves
