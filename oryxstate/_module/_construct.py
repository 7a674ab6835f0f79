"""Construction of modules: conversion and validation of field values."""

from __future__ import annotations

import abc
import dataclasses
import difflib
import inspect
import types
from typing import TYPE_CHECKING, Any, dataclass_transform

import jax

from oryxstate import _signatures
from oryxstate._module import _foreign, _hook, _pytree
from oryxstate._module._fields import FieldInfo, Layout, mend, param, state, static
from oryxstate._module._pytree import AUX, REST, is_module
from oryxstate._module._static import by_value, check_function, check_static, type_key


@dataclass_transform(
    frozen_default=True,
    eq_default=False,
    field_specifiers=(param, state, static, dataclasses.field),
)
class ModuleMeta(abc.ABCMeta):
    """Seals an instance when its `__init__`, written or generated, is done."""

    __layout__: Layout
    __generated_init__: bool

    if not TYPE_CHECKING:  # a type checker takes the signature of `__init__`

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            try:
                if cls.__generated_init__:
                    _check_keywords(cls, kwargs)
                module = super().__call__(*args, **kwargs)
                seal(module)
            except TypeError:
                text = cls.__misused__(args, kwargs)
                if text is None:
                    raise
                raise TypeError(text) from None
            return module

        def __setattr__(cls, name: str, value: Any) -> None:
            if name == "__dataclass_fields__":  # cloudpickle sets the attributes of a class
                mend(value)
            super().__setattr__(name, value)

        @property
        def __signature__(cls) -> inspect.Signature:
            """That of `__init__`, which `__call__` above hides from `inspect`."""
            return _signatures.signature_of(types.MethodType(cls.__init__, cls))


def _check_keywords(cls: Any, kwargs: dict[str, Any]) -> None:
    known = [name for name, field in cls.__layout__.fields.items() if field.init]
    for key in kwargs:
        if key not in known and key not in cls.__dataclass_fields__:  # the latter for InitVar
            raise TypeError(unknown_field(cls, key, known))


def unknown_field(cls: Any, key: str, known: Any) -> str:
    """Return the text of the error for a field that is not there, with the nearest one that is."""
    near = difflib.get_close_matches(key, list(known), n=1)
    hint = f" Did you mean `{near[0]}`?" if near else ""
    return f"{cls.__name__} has no field `{key}`.{hint} Its fields are: {', '.join(known)}."


def seal(module: Any) -> None:
    """Check all fields of a new module and freeze it.

    Raises:
        TypeError: if a field was left unset or holds what it cannot, naming class and field.
    """
    d, layout = module.__dict__, module.__layout__
    for name, field in layout.fields.items():
        if name not in d:
            _set_default(module, field)
    for name in layout.data:
        check_data(module, name, d[name])
    for name in layout.static:
        check_static(d[name], f"field `{name}` of {type(module).__name__}")
    if made := _hook.made:
        made(module)
    split_and_freeze(module)


def split_and_freeze(module: Any) -> None:
    """Move what is not data out of its children, and set what JAX compares in a frozen module."""
    _pytree.register(type(module))
    d, rests = module.__dict__, []
    for name in module.__layout__.children:
        if not isinstance(d[name], jax.Array):
            parts = _foreign.split(name, d[name], is_module)
            if parts is not None:
                d.setdefault(REST, {})[name] = parts
                rests.append(parts[1])
                del d[name]
    values = tuple(d[name] for name in module.__layout__.static)
    extra = _pytree.Extra(None, tuple(rests)) if rests else None
    d[AUX] = tuple(map(type_key, values)), values, extra


def _set_default(module: Any, field: dataclasses.Field) -> None:
    if not set_default(module, field):
        raise TypeError(
            f"field `{field.name}` of {type(module).__name__} was left unset by `__init__`. Assign "
            f"it there, `self.{field.name} = ...`, or give it a default."
        )


def set_default(module: Any, field: dataclasses.Field) -> bool:
    """Give a field its default, if it has one."""
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return False
    module.__dict__[field.name] = convert(module.__layout__.infos[field.name], value)
    return True


def convert(info: FieldInfo, value: Any) -> Any:
    """Return the value that a field keeps."""
    value = value if info.converter is None else info.converter(value)
    return by_value(value) if info.is_static else value


def restore(module: Any, values: dict[str, Any]) -> None:
    """Fill and freeze a module from a pickle of its class, perhaps as it was before.

    Raises:
        TypeError: for a field that the class has no more, or has only now and without a default.
    """
    kind, layout = type(module).__name__, module.__layout__
    for name in values:
        if name not in layout.fields:
            raise TypeError(
                f"the pickle has field `{name}` of {kind}, which the class does not have any more. "
                "Declare it again to load the pickle."
            )
    vars(module).update(values)
    for name, field in layout.fields.items():
        if name not in values and not set_default(module, field):
            raise TypeError(
                f"the pickle has no field `{name}` of {kind}, which the class has by now. Give the "
                "field a default to load the pickle."
            )
    split_and_freeze(module)


def check_data(module: Any, name: str, value: Any) -> None:
    """Refuse a value that a field of data cannot hold.

    Raises:
        TypeError: naming class and field.
    """
    if isinstance(value, jax.Array):
        return
    where = f"field `{name}` of {type(module).__name__}"
    info = module.__layout__.infos[name]
    if not info.is_child and any(map(is_module, jax.tree.leaves(value, is_leaf=is_module))):
        raise TypeError(
            f"{where} is declared `ox.{info.kind}()` but holds a module. Leave the specifier out: "
            "a field without one is a child, whose own fields say what is learned and what is "
            "state."
        )
    for path, leaf in _foreign.stray(value, is_module):
        at = f"{where} (at `{name}{jax.tree_util.keystr(path)}`)" if path else where
        check_function(leaf, at)
        if hasattr(leaf, "__in_field__"):
            raise TypeError(leaf.__in_field__(at))
        if callable(leaf) and info.is_child:
            name, kind = getattr(leaf, "__name__", repr(leaf)), type(leaf).__name__
            raise TypeError(_FUNCTION.format(at=at, name=name, kind=kind))
        raise TypeError(
            f"{at} holds {leaf!r} of type {type(leaf).__name__}, which JAX does not take as an "
            "array. If it is configuration, declare the field `ox.static()`; if it is a number to "
            "compute with, make it an array, `converter=jnp.asarray`."
        )


_FUNCTION = (
    "{at} holds the function `{name}` of type {kind}, which is not an array. Make it a layer, "
    "`nn.Lambda({name})`, which is called as other modules are; or if the field is configuration, "
    "declare it `ox.static()`."
)


def check_value(module: Any, name: str, value: Any) -> Any:
    """Return a new value for a field of a sealed module, converted and checked.

    Raises:
        TypeError: naming class and field.
    """
    info = module.__layout__.infos[name]
    value = convert(info, value)
    if name in module.__layout__.static:
        check_static(value, f"field `{name}` of {type(module).__name__}")
    else:
        check_data(module, name, value)
    return value
