"""Construction of the parts of a combinator."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx

from oryxstate import _api
from oryxstate._errors import InputError
from oryxstate._module import _pytree
from oryxstate._module._fields import static
from oryxstate.nn._layer import Layer, LayerParams
from oryxstate.nn._template import Template, in_spec_of, inputs_of


class Lambda(Layer):
    """A function as a layer.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from oryxstate import nn
        >>> nn.Lambda(jnp.square)(jnp.array(3.0))
        Array(9., dtype=float32, weak_type=True)
    """

    function: Callable[..., Any] = static()

    @classmethod
    def initialize(cls, init_key: Any, in_spec: Any, function: Callable[..., Any]) -> LayerParams:
        """Return the function; nothing depends on the input."""
        return LayerParams(info={"function": function})

    def call(self, *inputs: Any) -> Any:
        """Call the function."""
        return self.function(*inputs)


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
        if not (isinstance(part, Template) or callable(part)):
            raise TypeError(
                f"part {i} of {kind} is a {type(part).__name__}, {part!r}. Give a template, a "
                "layer or a function."
            )


def as_module(part: Callable[..., Any]) -> Any:
    """Return a module (ours or Equinox's) unchanged, and any other function as a layer."""
    if _pytree.is_module(part) or isinstance(part, eqx.Module):
        return part
    function: Any = part
    return Lambda(function)


def build(part: Any, key: Any, in_spec: Any, path: str) -> tuple[Any, Callable[[], Any]]:
    """Make the module of one part for these inputs, and a function that infers its output spec.

    Raises:
        InputError: if the part does not take such inputs, with its path.
    """
    if isinstance(part, Template):
        with _located(path):
            layer, infer = part.build(key, in_spec)
    else:
        layer, infer = as_module(part), None

    def out_spec() -> Any:
        with _located(path):
            if infer is not None:
                return infer()
            return in_spec_of((_api.spec(layer)(*inputs_of(in_spec)),))

    return layer, out_spec


@contextlib.contextmanager
def _located(path: str) -> Iterator[None]:
    """Add a path to any `InputError` raised inside."""
    try:
        yield
    except InputError as error:
        raise error.inside(path) from None
