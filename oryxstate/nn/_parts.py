"""Construction of the parts of a combinator."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import jax

from oryxstate import _api, _tree
from oryxstate._effects import _trace
from oryxstate._errors import InputError
from oryxstate._functions import assign, initialized, variable
from oryxstate._module import _takes
from oryxstate._module._base import Module
from oryxstate._module._fields import static
from oryxstate.nn._layer import Layer, LayerParams
from oryxstate.nn._template import Template, in_spec_of, inputs_of


class Lambda(Layer):
    """A function as a layer.

    Its keyword-only parameters are keywords of the call, as those of a module are.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from oryxstate import nn
        >>> nn.Lambda(jnp.square)(jnp.array(3.0))
        Array(9., dtype=float32, weak_type=True)
    """

    function: Callable[..., Any] = static()

    @property
    def __keywords__(self) -> dict[str, bool]:
        """Those of the function."""
        return _takes.taken_by(self.function).keyword_only

    @classmethod
    def initialize(cls, init_key: Any, in_spec: Any, function: Callable[..., Any]) -> LayerParams:
        """Return the function; nothing depends on the input."""
        return LayerParams(info={"function": function})

    def call(self, *inputs: Any, **keywords: Any) -> Any:
        """Call the function; `training` and `rng`, which every call takes, only if it has them."""
        taken = _takes.taken_by(self.function)
        own = {
            name: value
            for name, value in keywords.items()
            if name not in _takes.EVERYWHERE or (taken.accepts(name) and taken is not _takes.ANY)
        }
        return self.function(*inputs, **own)


def check_parts(kind: str, parts: tuple[Any, ...]) -> None:
    """Raise for a part that is not callable.

    Raises:
        TypeError: naming the combinator, the part and the remedy.
    """
    for i, part in enumerate(parts):
        if inspect.isclass(part) and issubclass(part, Layer):
            raise TypeError(
                f"part {i} of {kind} is the class {part.__name__}. Say how it is configured: "
                f"`{part.__name__}.of(...)`."
            )
        if not (callable(part) or _api.is_model(part)):
            raise TypeError(
                f"part {i} of {kind} is a {type(part).__name__}, {part!r}. Give a template, a "
                "layer or a function."
            )


def build(part: Any, key: Any, in_spec: Any, path: str) -> tuple[Any, Callable[[], Any]]:
    """Make the module of one part for these inputs, and a function that infers its output spec.

    Raises:
        InputError: if the part does not take such inputs, with its path.
    """
    inputs = inputs_of(in_spec)
    with _located(path), _trace.open_frame():  # not a variable of a function around it
        if isinstance(part, Template):
            layer, infer = part.build(key, in_spec)
        else:
            layer, infer = _made(part, key, inputs)

    def out_spec() -> Any:
        with _located(path):
            return infer()

    return layer, out_spec


def _made(part: Any, key: Any, inputs: tuple) -> tuple[Any, Callable[[], Any]]:
    """Return the same for a part that is not a template."""
    if _api.is_registered(_api.init, part):
        part = _api.init(part)(key, *inputs)
    if _api.is_model(part) and not isinstance(part, Module):
        part = _Model(part)
    if _api.is_ready(part):
        return part, lambda: in_spec_of((_api.spec(part)(*inputs),))
    module: Any = None

    def initialize(key: Any, *inputs: Any) -> Any:
        nonlocal module
        module, out = initialized(part, key, inputs)
        return out

    out = jax.eval_shape(initialize, key, *_tree.abstract(inputs))
    if module.variables():
        return _api.init(part)(key, *inputs), lambda: in_spec_of((out,))
    return Lambda(part), lambda: in_spec_of((out,))


class _Model:
    """An object that is called through `call_and_update`, as a function; its data is a variable."""

    def __init__(self, obj: Any):
        self.obj, self.__name__ = obj, type(obj).__name__
        self.__signature__ = _signature(_takes.keywords(obj))

    def __call__(self, *inputs: Any, **keywords: Any) -> Any:
        if not any(map(_tree.is_array, jax.tree.leaves(self.obj))):
            return _api.call(self.obj, *inputs, **keywords)
        held = variable(self.obj, name="value")
        out, new = _api.call_and_update(held, *inputs, **keywords)
        old, leaves = jax.tree.leaves(held), jax.tree.leaves(new)
        if any(a is not b for a, b in zip(old, leaves, strict=True)):
            assign(new, name="value")
        return out

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Model) and other.obj is self.obj

    def __hash__(self) -> int:
        return id(self.obj)


def _signature(keywords: dict[str, bool]) -> inspect.Signature:
    """Return the signature of a function of any inputs and these keywords, needed or not."""
    kind = inspect.Parameter
    names = [
        kind(name, kind.KEYWORD_ONLY, default=kind.empty if needed else None)
        for name, needed in keywords.items()
    ]
    return inspect.Signature([kind("inputs", kind.VAR_POSITIONAL), *names])


@contextlib.contextmanager
def _located(path: str) -> Iterator[None]:
    """Add a path to any `InputError` raised inside."""
    try:
        yield
    except InputError as error:
        raise error.inside(path) from None
