"""Templates: layers whose configuration is known and whose input is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar

from oryxstate import _api, _function_runs, _functions, _signatures
from oryxstate._tree import make_array_spec

if TYPE_CHECKING:
    from oryxstate.nn._combinators import Serial
    from oryxstate.nn._layer import Layer, LayerParams

P = ParamSpec("P")
L = TypeVar("L", bound="Layer")
LayerOut = TypeVar("LayerOut", bound="Layer", covariant=True)


@dataclasses.dataclass(frozen=True, repr=False)
class Template(Generic[L]):
    """A layer class with its configuration, which becomes a layer for a given input.

    `a >> b` is the template of `b` on the output of `a`; either may be a plain function.

    Attributes:
        layer: the class.
        args: positional arguments of its `initialize` after `init_key` and `in_spec`.
        options: keyword arguments of its `initialize`, as pairs.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from oryxstate import nn
        >>> template = nn.Dense.of(4) >> jax.nn.relu >> nn.Dense.of(2)
        >>> template.spec(jnp.ones(3))
        float32[2]
        >>> model = template.init(jax.random.key(0), jnp.ones(3))
        >>> model(jnp.ones(3)).shape
        (2,)
    """

    layer: type[L]
    args: tuple[Any, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()

    def init(self, key: Any, *inputs: Any, name: str | None = None) -> L:
        """Make the layer for these inputs.

        Args:
            key: a random key.
            *inputs: arrays or specs, or pytrees of them; only their shapes and dtypes matter.
            name: the name of the layer.

        Raises:
            InputError: if the layer does not take such inputs.
        """
        if not hasattr(key, "dtype"):
            raise TypeError(
                f"`ox.init(template)(key, x)` takes a random key first, `jax.random.key(0)`, but "
                f"got {key!r}."
            )
        return self.build(key, in_spec_of(inputs), name)[0]

    def build(self, key: Any, in_spec: Any, name: str | None = None) -> tuple[L, Callable[[], Any]]:
        """Make the layer for inputs of these specs, and a function that infers its output spec."""
        made = self.layer.initialize(key, in_spec, *self.args, **dict(self.options))
        layer = self.layer.new(made, name)
        if made.out_spec is not None:
            return layer, lambda: made.out_spec
        return layer, lambda: layer._infer(in_spec)

    def spec(self, *in_specs: Any, **keywords: Any) -> Any:
        """Return the specs of the output for inputs of these specs, with nothing computed."""
        return _api.spec(self)(*in_specs, **keywords)

    def call(self, key: Any, *inputs: Any, **keywords: Any) -> Any:
        """Make the layer with this key for these inputs, and call it."""
        return _api.call(self.init(key, *inputs), *inputs, **keywords)

    def __call__(self, *inputs: Any, **keywords: Any) -> Any:
        """Refuse the call: a template has no parameters.

        Raises:
            TypeError: always; it says how to make a layer.
        """
        raise TypeError(
            f"{self!r} is a template, which has no parameters yet. Make a model of it, "
            "`model = ox.init(template)(key, x)`, and call that."
        )

    def __in_field__(self, where: str) -> str:
        return (
            f"{where} holds the template {self!r}, which has no parameters yet. Make the layer for "
            f"an input, `ox.init({self!r})(key, x)`, and put that into the field."
        )

    def __rshift__(self, other: Template[Any] | Callable[..., Any]) -> Template[Serial]:
        return compose(self, other)

    def __rrshift__(self, other: Callable[..., Any]) -> Template[Serial]:
        return compose(other, self)

    def __repr__(self) -> str:
        config = [*map(show, self.args), *(f"{k}={show(v)}" for k, v in self.options)]
        if self.layer is _serial:
            return " >> ".join(config)
        return f"{self.layer.__name__}.of({', '.join(config)})"


def show(value: Any) -> str:
    """Format a configuration value as code, functions by their name."""
    named = callable(value) and not isinstance(value, Template)
    return getattr(value, "__name__", repr(value)) if named else repr(value)


class _Class(Protocol[P, LayerOut]):
    def initialize(
        self, init_key: Any, in_spec: Any, /, *args: P.args, **kwargs: P.kwargs
    ) -> LayerParams: ...

    def new(self, layer_params: Any, name: str | None = None) -> LayerOut: ...


class Of:
    """`Dense.of`: the template of a layer class, with the signature of its `initialize`."""

    def __get__(self, instance: None, owner: _Class[P, L]) -> Callable[P, Template[L]]:
        layer: Any = owner

        def of(*args: P.args, **options: P.kwargs) -> Template[L]:
            try:
                _signatures.signature_of(layer.initialize).bind(None, None, *args, **options)
            except TypeError as error:
                raise TypeError(f"{layer.__name__}.of: {error}") from None
            layer.check(*args, **options)
            return Template(layer, args, tuple(options.items()))

        return of


def in_spec_of(inputs: tuple) -> Any:
    """Return the spec of a single input, or a tuple of specs, as `initialize` takes them."""
    specs = tuple(map(make_array_spec, inputs))
    return specs[0] if len(specs) == 1 else specs


def inputs_of(in_spec: Any) -> tuple:
    """Invert `in_spec_of`."""
    return in_spec if type(in_spec) is tuple else (in_spec,)


_serial: Any = None


def chain_with(serial: type[L]) -> type[L]:
    """Make this the class of `a >> b`."""
    global _serial
    _serial = serial
    return serial


def compose(first: Any, second: Any) -> Template[Serial]:
    """Return the template of `second` after `first`; nested chains become one flat chain."""
    parts = [
        part
        for x in (first, second)
        for part in (x.args if isinstance(x, Template) and x.layer is _serial else (x,))
    ]
    return _serial.of(*parts)


@_api.init.register
def _(obj: Template, *, name: str | None = None) -> Callable[..., Any]:
    """Make the layer a module of the function being initialized, if there is one."""

    def initialize(key: Any, *inputs: Any, **_: Any) -> Any:
        around = _function_runs.around()
        if around is None:
            return obj.init(key, *inputs, name=name)
        if name is not None:
            _functions.check_name(name)
        own = name or around.fresh_name(obj.layer.__name__.lower())
        return around.declared(own, lambda: obj.init(key, *inputs, name=own))

    return initialize


@_api.call_and_update.register
def _(obj: Template, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    return obj(*args, **kwargs)
