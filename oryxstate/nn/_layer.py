"""The base class of layers: modules that make their fields for a given input."""

from __future__ import annotations

import abc
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp

from oryxstate import _api, _jax, _signatures, _tree
from oryxstate._errors import InputError
from oryxstate._module import _keywords, _live, _pytree
from oryxstate._module._base import Module
from oryxstate._tree import ArraySpec, make_array_spec
from oryxstate.nn._precision import common_dtype
from oryxstate.nn._template import Of, Template, inputs_of, show


@dataclass(frozen=True)
class LayerParams:
    """The result of `Layer.initialize`: the fields of the layer, by kind.

    `params, info, state = layer_params` takes it apart.

    Attributes:
        params: the learned fields, and the layers inside.
        info: the static fields.
        state: the fields that calls update.
        out_spec: the specs of the output if they are known; otherwise they are inferred.
    """

    params: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    out_spec: Any = None

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter((self.params, self.info, self.state))


class Layer(Module):
    """A module that makes its fields for the shape of its input.

    Subclass it like `Module`, and write `initialize` too. `Dense.of(64)` is then a template, which
    makes the layer for a given input; templates compose with `>>`.

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

    @classmethod
    @abc.abstractmethod
    def initialize(cls, init_key: Any, in_spec: Any, *config: Any, **options: Any) -> LayerParams:
        """Make the fields of a layer for this input.

        Args:
            init_key: a random key for the first values.
            in_spec: the `ArraySpec` of the input; a tuple of them if there are several.
            *config: the arguments of `of`.
            **options: its keyword arguments.

        Raises:
            InputError: if the layer does not take such an input (`cls.wrong_input`).
        """

    @classmethod
    def check(cls, *config: Any, **options: Any) -> None:
        """Raise for a configuration that suits no input. Called when a template is made."""

    def __post_init__(self) -> None:
        self._check_fields()

    def _check_fields(self) -> None:
        """Raise for static fields that no template would give. Called also by `replace`."""

    @classmethod
    def new(cls, layer_params: LayerParams, name: str | None = None) -> Self:
        """Return the layer with these fields.

        Raises:
            TypeError: for a field that is listed as another kind than it is declared.
        """
        fields: dict[str, Any] = {}
        for kind, part in zip(_KINDS, layer_params, strict=True):
            for key, value in dict(part or {}).items():
                declared = cls._kind(key)
                if declared not in (kind, None):
                    raise TypeError(_other_kind(cls, key, kind, declared))
                fields[key] = value
        return cls(**fields, name=name)

    @classmethod
    def _kind(cls, field: str) -> str | None:
        info = cls.__layout__.infos.get(field)
        if info is None:
            return None
        return "info" if info.is_static else "state" if info.is_state else "params"

    def _fields(self, kind: str) -> dict[str, Any]:
        names = [n for n in self.__layout__.fields if n != "name" and self._kind(n) == kind]
        return {name: getattr(self, name) for name in names}

    @property
    def params(self) -> dict[str, Any]:
        """The learned fields and the layers inside, by name."""
        return self._fields("params")

    @property
    def state(self) -> dict[str, Any]:
        """What calls update, by name: the fields of this layer, and the state of those inside.

        The state of a layer inside is its own `state`, in the containers in which it stands.
        """
        return _state_of(self)

    @property
    def info(self) -> dict[str, Any]:
        """The static fields, by name."""
        return self._fields("info")

    def replace(
        self,
        *,
        params: Mapping[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
        info: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Self:
        """Return a copy with other values, by part as `params` gives it, or by field.

        Raises:
            TypeError: for a field that is not there or a value it cannot hold.
            ValueError: for a configuration that the layer's template would refuse.
        """
        for part in (params, info):
            fields = {**(part or {}), **fields}
        new = super().replace(**{**_with_state(self, state or {}), **fields})
        if any(self._kind(name) == "info" for name in fields):
            new._check_fields()
        return new

    def spec(self, *in_specs: Any, **keywords: Any) -> Any:
        """Return the specs of the output, with nothing computed.

        Args:
            *in_specs: arrays, specs, or pytrees of them.
            **keywords: keywords of the call; `training` is False by default.

        Raises:
            InputError: if the layer does not take such an input.
        """
        return _api.spec(self)(*in_specs, **keywords)

    def _infer(self, in_spec: Any) -> Any:
        """Return the specs of the output for an input that the layer was made for.

        By the rule of the layer if it has one, otherwise by tracing a call.

        Args:
            in_spec: the `ArraySpec` of the input; a tuple of them if there are several.
        """
        known = None
        if type(self).__module__.startswith("oryxstate."):  # a subclass may call something else
            known = self._out_spec(jax.tree.map(_canonical, in_spec))
        return self.spec(*inputs_of(in_spec)) if known is None else known

    def _out_spec(self, in_spec: Any) -> Any:
        """Return the specs of the output if they are known without a call; None if not."""
        return None

    def check_input(self, fits: bool, expected: str, x: Any) -> None:
        """Raise unless an input fits.

        Raises:
            InputError: with the layer, its path, the expected input and the given one.
        """
        if not fits:
            kind, path = type(self).__name__, _live.path_of(self)
            raise InputError(kind, expected, make_array_spec(x), path)

    def trains(self, training: Any) -> bool:
        """Return `training` as a Python bool, since it decides which program is traced.

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
        """Return the value of a keyword that this call needs; other calls may leave it out.

        Raises:
            TypeError: if it is None, naming the layer and its path.
        """
        if value is None:
            raise TypeError(_keywords.missing(self, _live.path_of(self), keyword))
        return value

    @classmethod
    def __misused__(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        if inspect.isabstract(cls):
            return None
        fields = {name for name in cls.__layout__.fields if name != "name"}
        if fields & set(kwargs) or any(map(_tree.is_array, jax.tree.leaves(args))):
            return None
        options = [f"{key}={show(value)}" for key, value in kwargs.items()]
        given = f"{cls.__name__}({', '.join([*map(show, args), *options])})"
        template = _template_of(cls, args, kwargs)
        return (
            f"{given} makes a layer of its fields ({', '.join(sorted(fields))}), which are known "
            f"once it has seen an input. Write {template}, and make the layer with "
            "`ox.init(template)(key, x)`."
        )

    def __rshift__(self, other: Any) -> Any:
        if isinstance(other, Template):  # which knows what to do
            return NotImplemented
        raise TypeError(_made(self, self, other))

    def __rrshift__(self, other: Any) -> Any:
        raise TypeError(_made(self, other, self))

    @classmethod
    def wrong_input(cls, expected: str, in_spec: Any) -> InputError:
        """Return the error for an input that the layer does not take."""
        return InputError(cls.__name__, expected, in_spec)


_KINDS = "params", "info", "state"


def _other_kind(cls: type[Layer], field: str, kind: str, declared: Any) -> str:
    return (
        f"{cls.__name__}.initialize lists `{field}` under `{kind}=`, but it is declared as "
        f"`{declared}`. Write `LayerParams({declared}={{'{field}': ...}})`, or declare the field "
        "with another specifier."
    )


def _state_of(module: Any) -> dict[str, Any]:
    """Return the state of a module and of those inside, by field."""
    found = {name: getattr(module, name) for name in module.__layout__.state}
    for name in module.__layout__.children:
        value = _pytree.stored(module, name)
        if any(_pytree.has_state(m) for _, m in _pytree.modules(value)):
            found[name] = jax.tree.map(
                lambda x: _state_of(x) if _pytree.is_module(x) else None,
                value,
                is_leaf=_pytree.is_module,
            )
    return found


def _with_state(module: Any, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a module with such a state."""
    fields = dict(state)
    for name in set(module.__layout__.children) & set(fields):
        fields[name] = jax.tree.map(
            lambda x, s: x.replace(**_with_state(x, s)) if _pytree.is_module(x) else x,
            _pytree.stored(module, name),
            fields[name],
            is_leaf=_pytree.is_module,
        )
    return fields


def _made(layer: Layer, *parts: Any) -> str:
    chain = " >> ".join(
        f"{type(part).__name__}.of(...)" if isinstance(part, Layer) else show(part)
        for part in parts
    )
    return (
        f"`>>` composes templates, and this {type(layer).__name__} is a layer that is made. "
        f"Compose before you make: `ox.init({chain})(key, x)`. A chain of layers that are made is "
        "`nn.Serial((layer, nn.Lambda(function), ...))`."
    )


def _template_of(cls: type[Layer], args: tuple, kwargs: dict[str, Any]) -> str:
    """Return what to write instead of `Dense(64)` or `Dense(in, out)`."""
    parameters = list(_signatures.signature_of(cls.initialize).parameters.values())[2:]
    for given in (args, args[1:] if parameters and parameters[0].name == "features" else args):
        try:
            template = cls.of(*given, **kwargs)
        except (TypeError, ValueError):
            continue
        seen = "" if given is args else f" (it sees the size of its input, here {args[0]!r})"
        return f"the template `{template!r}`{seen}"
    names = ", ".join(
        p.name if p.default is p.empty else f"{p.name}={show(p.default)}" for p in parameters
    )
    return f"a template, `{cls.__name__}.of({names})`"


def spec_in(dtype: Any, shape: tuple[int, ...], *values: Any) -> ArraySpec:
    """Return the spec of an output in `dtype`, or in the dtype that the values promote to."""
    return _canonical(ArraySpec(shape, common_dtype(dtype, *values)))


def _canonical(spec: ArraySpec) -> ArraySpec:
    """Return the spec in which JAX traces: of 32 bits, unless 64 are enabled."""
    if jnp.issubdtype(spec.dtype, jax.dtypes.extended):
        return spec
    return ArraySpec(spec.shape, jax.dtypes.canonicalize_dtype(spec.dtype))


def single(cls: type[Layer], in_spec: Any) -> ArraySpec:
    """Return the spec of a layer's only input.

    Raises:
        InputError: if there are several inputs, or the input is not an array.
    """
    if not isinstance(in_spec, ArraySpec):
        raise InputError(cls.__name__, "one array", in_spec)
    return in_spec
