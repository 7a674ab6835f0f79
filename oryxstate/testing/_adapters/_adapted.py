"""The protocol between the laws and the libraries that models are written with."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from oryxstate import _tree

Kind = Literal["module", "pytree", "functions", "optimizer"]
KINDS: tuple[Kind, ...] = ("module", "pytree", "functions", "optimizer")


def _split(values: Any) -> tuple[Any, Any]:
    """Take all floating-point arrays for learned."""
    return eqx.partition(values, is_inexact)


@dataclasses.dataclass(frozen=True, eq=False)
class Adapted:
    """The arrays of a model, and a pure call of them: how the laws see a model of any library.

    Attributes:
        model: the model as it was given.
        values: a pytree of all of its arrays, those that it learns and its state.
        call: `(values, *args, **kwargs) -> (output, updated values)`, a pure function that JAX can
            transform. Structure, shapes and dtypes of the values do not change. Laws compile once
            for equal calls: give a function of a module, or `jax.tree_util.Partial(function, ...)`
            with its constants, rather than a new closure for each case.
        partition: `values -> (learned, rest)`, both of the structure of the values, with None for
            the leaves of the other, as `equinox.partition` returns them. By default all
            floating-point arrays are learned.
        kind: which laws mean something: `"module"` for what `oryxstate.call_and_update` takes;
            `"pytree"` for a model that is a pytree itself; `"functions"` for one whose arrays are
            kept beside it; `"optimizer"` for what turns gradients into updates.
        label: the kind of model in reports, such as "Equinox module".
        name: of the model in reports; by default that of its class.
        code: Python code that makes the model, for reports of failures; by default the name
            `model`.
        threaded: positions and keywords of arguments that are part of the values, such as a
            `State` of Equinox. `call` is given None for them.
        statics: constants of the model by path, such as static fields; None if the library keeps
            them to itself.
    """

    model: Any
    values: Any
    call: Callable[..., tuple[Any, Any]]
    partition: Callable[[Any], tuple[Any, Any]] = _split
    kind: Kind = "functions"
    label: str = "model"
    name: str = ""
    code: str = "model"
    threaded: frozenset[int | str] = frozenset()
    statics: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"Adapted: kind must be one of {KINDS}, got {self.kind!r}.")
        if not self.name:
            object.__setattr__(self, "name", type(self.model).__name__)

    def left(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with None for those that are part of the values."""
        rest = tuple(None if i in self.threaded else x for i, x in enumerate(args))
        return rest, {k: None if k in self.threaded else v for k, v in kwargs.items()}


class NoAdapter(TypeError):
    """There is no adapter for an object, and it cannot be called."""


class ChangedInPlace(Exception):
    """Raised by an adapter for a call that assigns to the model itself."""


Adapter = Callable[[Any, tuple[Any, ...], Mapping[str, Any]], Adapted]
_waiting: dict[tuple[str, str], Adapter] = {}


@functools.singledispatch
def adapt(model: Any, args: tuple, kwargs: Mapping[str, Any]) -> Adapted:
    """Return the arrays of a model and a pure call of them, which the laws are checked on.

    There are adapters for modules of oryxstate, Equinox modules, callable pytrees and functions,
    Flax NNX and Linen modules, functions transformed by Haiku, optax gradient transformations, and
    `Functions`. For models of another library, register one for their base class: a function of
    the model and the arguments of a call (of one example), which returns an `Adapted`.

    Args:
        model: the model.
        args: the arguments of its call, from which some libraries make the arrays of a model.
        kwargs: the keywords.

    Raises:
        TypeError: if there is no adapter for it, and it cannot be called.

    Examples:
        A library whose models keep their arrays in a dictionary:

        >>> import jax.numpy as jnp
        >>> from oryxstate.testing import Adapted, adapt, check_module
        >>> class Dense:
        ...     def __init__(self, size):
        ...         self.weights = {"kernel": jnp.ones((size, size))}
        ...     def forward(self, weights, x):
        ...         return x @ weights["kernel"]
        >>> @adapt.register(Dense)
        ... def _(dense, args, kwargs):
        ...     def call(weights, *args, **kwargs):
        ...         return dense.forward(weights, *args, **kwargs), weights
        ...     return Adapted(dense, dense.weights, call, label="model of my library")
        >>> report = check_module(Dense(2), jnp.ones(2))
        >>> "vmap_is_loop" in report.checked
        True
    """
    raise NotImplementedError  # for anything else: `_pytrees.py`


def when_imported(module: str, name: str) -> Callable[[Adapter], Adapter]:
    """Register the adapter of a class of a library that may never be imported."""

    def register(adapter: Adapter) -> Adapter:
        _waiting[module, name] = adapter
        return adapter

    return register


def register_imported() -> None:
    """Register the adapters of libraries that were imported meanwhile."""
    for module, name in list(_waiting):
        kind = getattr(sys.modules.get(module), name, None)
        if isinstance(kind, type):
            adapt.register(kind, _waiting.pop((module, name)))


def is_adapted(model: Any) -> bool:
    """Whether there is an adapter for the type of a model, beside that for anything callable."""
    register_imported()
    return adapt.dispatch(type(model)) is not adapt.dispatch(object)


def is_inexact(leaf: Any) -> bool:
    """Whether a leaf is an array of floating-point or complex numbers."""
    return _tree.is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def arrays_of(tree: Any) -> tuple[Any, Any]:
    """Split a pytree into its arrays and the rest, both of its structure, with None for others."""
    return eqx.partition(tree, _tree.is_array)


def example_key(kwargs: Mapping[str, Any], name: str) -> Any:
    """Return the random key that is given for a call, or one for the arrays of a model."""
    given = kwargs.get(name)
    return jax.random.key(0) if given is None else given
