"""What is a layer? A module that knows how to make itself for a given input."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from oryxstate import _api, _jax
from oryxstate._errors import InputError
from oryxstate._module import _keywords, _live
from oryxstate._module._base import Module
from oryxstate._tree import ArraySpec, make_array_spec
from oryxstate.nn._template import Of


@dataclass(frozen=True)
class LayerParams:
    """What `Layer.initialize` returns: the fields of the layer, by what they are.

    Attributes:
        params: those that are learned, and the layers inside.
        info: those that are static.
        state: those that calls update.
        out_spec: the specs of the output, if they are known; else they are inferred.
    """

    params: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    out_spec: Any = None


class Layer(Module):
    """A module that is made for the shape of its input.

    Subclass it like `Module`, and write `initialize` too. `Dense.of(64)` is then a template that
    makes the layer when it sees an input; templates compose with `>>`.

    Keyword-only parameters of `call` are threaded: given where the model is called, they reach
    every layer that takes them and was not given them. `rng` is a random key, of which each layer
    gets one of its own, at each call and for each example of a `vmap`.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> class Scale(nn.Layer):
        ...     scale: jax.Array = ox.param()
        ...
        ...     @classmethod
        ...     def initialize(cls, init_key, in_spec, first: float = 1.0):
        ...         return nn.LayerParams(params={"scale": jnp.full(in_spec.shape[-1], first)})
        ...
        ...     def call(self, x, *, training: bool = False):
        ...         return x * self.scale if training else x
        >>> model = ox.init(Scale.of(2.0) >> jnp.sum)(jax.random.key(0), jnp.ones(3))
        >>> float(model(jnp.ones(3), training=True))
        6.0
    """

    of: ClassVar[Of] = Of()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__keywords__" not in cls.__dict__:
            cls.__keywords__ = {  # type: ignore[assignment]
                **_keywords.taken_by(cls.call_and_update),
                **_keywords.taken_by(cls.call),
            }

    @classmethod
    @abc.abstractmethod
    def initialize(cls, init_key: Any, in_spec: Any, *config: Any, **options: Any) -> LayerParams:
        """The fields of a layer for this input.

        Args:
            init_key: a random key for the first values.
            in_spec: the `ArraySpec` of the input; a tuple of them if there are several.
            *config: the arguments of `of`.
            **options: its keyword arguments.

        Raises:
            InputError: if there is no such layer for this input (`cls.wrong_input`).
        """

    @classmethod
    def check(cls, *config: Any, **options: Any) -> None:
        """Raise for a configuration that no input could suit; asked when a template is made."""

    @classmethod
    def new(cls, layer_params: LayerParams, name: str | None = None) -> Self:
        """The layer with these fields."""
        parts = layer_params.params, layer_params.info, layer_params.state
        fields = {key: value for part in parts for key, value in part.items()}
        return cls(**fields, name=name)

    def _fields(self, kind: str) -> dict[str, Any]:
        layout = self.__layout__
        names = {"info": layout.static, "state": layout.state}.get(
            kind, tuple(name for name in layout.data if name not in layout.state)
        )
        return {name: getattr(self, name) for name in names if name != "name"}

    @property
    def params(self) -> dict[str, Any]:
        """What is learned, and the layers inside, by field."""
        return self._fields("params")

    @property
    def state(self) -> dict[str, Any]:
        """What calls update, by field."""
        return self._fields("state")

    @property
    def info(self) -> dict[str, Any]:
        """What is static, by field."""
        return self._fields("info")

    def replace(
        self,
        *,
        params: Mapping[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
        info: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Self:
        """A copy with other values, by part as `params` gives it, or by field.

        Raises:
            TypeError: for a field that is not there or a value it cannot hold.
        """
        for part in (params, state, info):
            fields = {**(part or {}), **fields}
        return super().replace(**fields)

    def spec(self, *in_specs: Any, **keywords: Any) -> Any:
        """The specs of the output, with nothing computed.

        Args:
            *in_specs: arrays, specs, or pytrees of them.
            **keywords: of the call; `training` is off unless given.

        Raises:
            InputError: if the layer does not take such an input.
        """
        return _api.spec(self)(*in_specs, **keywords)

    def check_input(self, fits: bool, expected: str, x: Any) -> None:
        """Raise unless an input fits.

        Raises:
            InputError: naming the layer, its path, what it takes and what it got.
        """
        if not fits:
            kind, path = type(self).__name__, _live.path_of(self)
            raise InputError(kind, expected, make_array_spec(x), path)

    def trains(self, training: Any) -> bool:
        """The value of `training`, which decides what is traced.

        Raises:
            TypeError: if it is traced itself, naming the layer and its path.
        """
        if isinstance(training, _jax.Tracer):
            path = _live.path_of(self)
            where = f" at '{path}'" if path else ""
            raise TypeError(
                f"{type(self).__name__}{where} got a traced `training`, but which program is "
                "traced depends on it. Under `jax.jit` make it static, "
                "`jax.jit(step, static_argnames='training')`, or close over it."
            )
        return bool(training)

    def needed(self, keyword: str, value: Any) -> Any:
        """A keyword that this call needs although another may do without.

        Raises:
            TypeError: if it is None, naming the layer and its path.
        """
        if value is None:
            raise TypeError(_keywords.missing(self, _live.path_of(self), keyword))
        return value

    @classmethod
    def wrong_input(cls, expected: str, in_spec: Any) -> InputError:
        """The error for an input that no such layer can be made for."""
        return InputError(cls.__name__, expected, in_spec)


def single(cls: type[Layer], in_spec: Any) -> ArraySpec:
    """The spec of a layer's only input.

    Raises:
        InputError: if there are several, or it is no array.
    """
    if not isinstance(in_spec, ArraySpec):
        raise InputError(cls.__name__, "one array", in_spec)
    return in_spec
