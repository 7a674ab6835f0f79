"""Python code that rebuilds a value, for reports of failing examples."""

from __future__ import annotations

import dataclasses
import enum
import math
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from oryxstate import _jax
from oryxstate._module import _construct
from oryxstate._module._base import Module
from oryxstate._tree import ArraySpec
from oryxstate.nn._template import Template
from oryxstate.testing import _hypothesis

# Where functions of JAX are found, by the names that code has for these places.
_PLACES = {"jnp": jnp, "jax.nn": jax.nn, "jax.lax": jax.lax, "jax": jax, "jax.random": jax.random}
_LARGE = 8  # constant arrays with more elements are written as `jnp.full`

_made: weakref.WeakKeyDictionary[Module, Callable[[], str]] = weakref.WeakKeyDictionary()


def code(value: Any) -> str:
    """Return code that rebuilds a value exactly.

    It is an expression of `jax`, `jnp`, `np`, `rebuild`, and the names of classes and functions. It
    covers modules, arrays, keys, specs, templates, functions, and containers and dataclasses of
    these; anything else becomes its `repr`.

    Args:
        value: such a value.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from oryxstate import nn
        >>> from oryxstate.testing import code
        >>> print(code(nn.Dense(jnp.array([[0.5]]), None)))
        Dense(kernel=jnp.array([[0.5]], 'float32'), bias=None)
        >>> print(code({"f": jax.nn.relu, "key": jax.random.key(3)}))
        {'f': jax.nn.relu, 'key': jax.random.key(3)}
    """
    if isinstance(value, Module):
        return _made[value]() if value in _made else _module(value)
    if isinstance(value, jax.Array):
        return repr(value) if isinstance(value, _jax.Tracer) else _array(value)
    if isinstance(value, np.ndarray | np.generic):
        return _numbers(np.asarray(value), "np")
    if isinstance(value, Template):
        return call(f"{value.layer.__name__}.of", value.args, dict(value.options))
    return _plain(value)


def rebuild(kind: type, **fields: Any) -> Any:
    """Make a module with these fields, without its `__init__`.

    Use it for modules whose constructor does not accept their fields.

    Args:
        kind: the class.
        **fields: all of its fields, as they are.

    Examples:
        >>> import jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate.testing import code, rebuild
        >>> class Zeros(ox.Module):
        ...     kernel: jnp.ndarray
        ...     def __init__(self, features: int):
        ...         self.kernel = jnp.zeros(features)
        >>> print(code(Zeros(1)))
        rebuild(Zeros, kernel=jnp.array([0.0], 'float32'))
    """
    module = object.__new__(kind)
    vars(module).update(fields)
    _construct.seal(module)
    return module


def remember(module: Module, how: Callable[[], str]) -> None:
    """Record the code that made a module, which is shorter than its arrays."""
    _made[module] = how


def show(kind: type) -> None:
    """Have Hypothesis print values of this class as code."""
    _hypothesis.print_as(kind, code)


def call(function: str, args: Any = (), kwargs: Any = None) -> str:
    """Return the code of a call with these arguments."""
    named = [f"{name}={code(value)}" for name, value in (kwargs or {}).items()]
    return f"{function}({', '.join([*map(code, args), *named])})"


def _module(module: Module) -> str:
    kind, layout = type(module), module.__layout__
    fields = {name: getattr(module, name) for name in layout.fields}
    short = {n: v for n, v in fields.items() if not _is_default(layout.fields[n], v)}
    try:
        twin = kind(**short)
    except Exception:  # whatever it raises, this constructor does not rebuild the module
        return call("rebuild", (kind,), short)
    same = all(same_value(getattr(twin, name), value) for name, value in fields.items())
    return call(kind.__name__, (), short) if same else call("rebuild", (kind,), short)


def _is_default(field: dataclasses.Field, value: Any) -> bool:
    default = field.default
    if default is value or isinstance(value, jax.Array):
        return default is value
    return type(default) is type(value) and default == value


def same_value(one: Any, other: Any) -> bool:
    """Return whether two values have the same structure and the same arrays, bit for bit."""
    leaves, structure = jax.tree.flatten(one)
    others, other_structure = jax.tree.flatten(other)
    return structure == other_structure and all(map(_same_leaf, leaves, others))


def _same_leaf(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if not (isinstance(one, jax.Array) and isinstance(other, jax.Array)):
        return type(one) is type(other) and bool(np.all(one == other))
    if jax.typeof(one) != jax.typeof(other):
        return False
    if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
        one, other = jax.random.key_data(one), jax.random.key_data(other)
    return np.asarray(one).tobytes() == np.asarray(other).tobytes()


def _array(x: jax.Array) -> str:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return _key(x)
    if getattr(jax.typeof(x), "weak_type", False) and x.shape == ():
        return f"jnp.asarray({_number(np.asarray(x)[()])})"
    return _numbers(np.asarray(x), "jnp")


def _key(key: jax.Array) -> str:
    data, impl = np.asarray(jax.random.key_data(key)), jax.random.key_impl(key)
    default = jax.random.key_impl(jax.random.key(0)) == impl
    if key.shape == () and default and data[-1] < 2**31:
        made = jax.random.key_data(jax.random.key(int(data[-1])))
        if np.array_equal(np.asarray(made), data):
            return f"jax.random.key({data[-1]})"
    return f"jax.random.wrap_key_data({_numbers(data, 'jnp')}, impl={str(impl)!r})"


def _numbers(x: np.ndarray, where: str) -> str:
    name = repr(x.dtype.name)
    same = x.size > 0 and x.tobytes() == x.flat[:1].tobytes() * x.size
    if x.size == 0:
        return f"{where}.zeros({x.shape}, {name})"
    if same and x.size > _LARGE:
        return f"{where}.full({x.shape}, {_number(x.flat[0])}, {name})"
    return f"{where}.array({_nested(x)}, {name})"


def _nested(x: Any) -> str:
    return _number(x[()]) if x.ndim == 0 else f"[{', '.join(map(_nested, map(np.asarray, x)))}]"


def _number(x: Any) -> str:
    """Return the shortest text of the number in its dtype."""
    if isinstance(x, complex | np.complexfloating):
        return f"complex({_number(x.real)}, {_number(x.imag)})"
    if isinstance(x, bool | int | np.bool_ | np.integer):
        return str(x)
    number = float(x) if jnp.issubdtype(getattr(x, "dtype", float), jnp.floating) else x
    if isinstance(number, float) and math.isnan(number):
        return "jnp.nan"
    if isinstance(number, float) and math.isinf(number):
        return "jnp.inf" if number > 0 else "-jnp.inf"
    text = str(x)
    return f"{text}.0" if isinstance(number, float) and text.lstrip("-").isdigit() else text


def _plain(value: Any) -> str:
    if isinstance(value, ArraySpec):
        return f"ArraySpec({value.shape}, {str(value.dtype)!r})"
    if isinstance(value, float | complex):
        return _number(value)
    if isinstance(value, enum.Enum):
        return str(value) if type(value).__str__ is enum.Enum.__str__ else _member(value)
    if isinstance(value, np.dtype):
        return f"jnp.dtype({value.name!r})"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return call(type(value).__name__, (), value._asdict())  # type: ignore[attr-defined]
    if type(value) is tuple:
        return f"({', '.join(map(code, value))}{',' * (len(value) == 1)})"
    if type(value) is list:
        return f"[{', '.join(map(code, value))}]"
    if type(value) is dict:
        return "{" + ", ".join(f"{code(k)}: {code(v)}" for k, v in value.items()) + "}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init and f.repr
        }
        return call(type(value).__name__, (), fields)
    return _name(value) if callable(value) else repr(value)


def _member(value: enum.Enum) -> str:
    return f"{type(value).__name__}.{value.name}"


def _name(function: Any) -> str:
    """Return the name of a class or a function, qualified if it belongs to JAX."""
    name = getattr(function, "__name__", None)
    if name is None:
        return repr(function)
    for place, module in _PLACES.items():
        if getattr(module, name, None) is function:
            return f"{place}.{name}"
    return name


show(jax.Array)
