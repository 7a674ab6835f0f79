"""The fields of a module class and their specifiers: `param`, `state`, `static`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

Kind = Literal["param", "state", "static", "child"]
Axes = Sequence[Any] | Callable[[Any], Any]
_KEY = "oryxstate"


class FieldInfo(NamedTuple):
    """The options of a field specifier.

    Attributes:
        kind: how the field is treated; "child" where there was no specifier.
        converter: applied to every value that the field is given.
        reduce: for state, combines the values that the examples of a `vmap` write.
        axes: the logical names of the axes of the array, or a function of the module that returns
            them; None if nothing is said.
    """

    kind: Kind = "child"
    converter: Callable[[Any], Any] | None = None
    reduce: Callable[..., Any] | None = None
    axes: Axes | None = None

    @property
    def is_param(self) -> bool:
        """Whether the field is declared as learned; what a child learns, its own fields say."""
        return self.kind == "param"

    @property
    def is_state(self) -> bool:
        """Whether calls update the field."""
        return self.kind == "state"

    @property
    def is_static(self) -> bool:
        """Whether the field is configuration."""
        return self.kind == "static"

    @property
    def is_child(self) -> bool:
        """Whether the field has no specifier: it holds modules, containers of them or arrays."""
        return self.kind == "child"


def info(field: dataclasses.Field) -> FieldInfo:
    """Return the specifier of a dataclass field."""
    return field.metadata.get(_KEY, FieldInfo())


def mend(fields: dict[str, dataclasses.Field]) -> None:
    """Restore what dataclasses know by identity, in fields that may have been pickled."""
    for field in fields.values():
        for name in ("default", "default_factory"):
            if isinstance(getattr(field, name), type(dataclasses.MISSING)):
                setattr(field, name, dataclasses.MISSING)


def _field(
    kind: Kind, converter: Any, options: dict[str, Any], reduce: Any = None, axes: Any = None
) -> Any:
    axes = axes if axes is None or callable(axes) else checked_axes(f"{kind}({axes=!r})", axes)
    metadata = {**options.pop("metadata", {}), _KEY: FieldInfo(kind, converter, reduce, axes)}
    unknown = set(options) - {"default", "default_factory", "init", "repr", "kw_only"}
    if unknown:
        raise TypeError(f"{kind}() got unknown options: {', '.join(sorted(unknown))}")
    return dataclasses.field(metadata=metadata, **options)


def checked_axes(where: str, axes: Any) -> tuple[Any, ...]:
    """Return the names of axes as a tuple.

    Args:
        where: what gives them, for messages.
        axes: the names.

    Raises:
        TypeError: for anything else than names.
    """
    listed = isinstance(axes, Iterable) and not isinstance(axes, str | Mapping)
    names = tuple(axes) if listed else (axes,)
    known = all(n is None or n is ... or isinstance(n, str) for n in names)
    if not (listed and known) or names.count(...) > 1:
        raise TypeError(
            f"{where}: `axes` has one name for each axis of the array, None for an axis without, "
            'such as `("embed", None)`; one `...` stands for any number of axes without names.'
        )
    return names


def param(
    *,
    axes: Axes | None = None,
    converter: Callable[[Any], Any] | None = None,
    **options: Any,
) -> Any:
    """Declare a field that is learned: an array or a pytree of arrays.

    Args:
        axes: the logical names of the axes, such as `("embed", "mlp")`, by which
            `oryxstate.shardings` places the array on a mesh of devices. None stands for an axis
            without a name, one `...` for any number of them. Where the names depend on the module,
            a function of it that returns them; for a dictionary of arrays it may return one.
        converter: applied to every value the field is given, such as `jnp.asarray`.
        **options: `default`, `default_factory`, `init`, `repr`, `kw_only` and `metadata`, as for
            `dataclasses.field`.

    Examples:
        >>> import jax.numpy as jnp
        >>> import oryxstate as ox
        >>> class Scale(ox.Module):
        ...     scale: jnp.ndarray = ox.param(converter=jnp.asarray, default=1.0)
        ...     def call(self, x):
        ...         return self.scale * x
        >>> float(Scale(3.0)(2.0))
        6.0
    """
    return _field("param", converter, options, axes=axes)


def state(
    *,
    reduce: Callable[..., Any] | None = None,
    axes: Axes | None = None,
    converter: Callable[[Any], Any] | None = None,
    **options: Any,
) -> Any:
    """Declare a field that calls update: an array or a pytree of arrays, of a fixed type.

    Args:
        reduce: called as `reduce(values, axis=i)` to combine the values that the examples of a
            `jax.vmap` write, such as `jnp.mean`; without it such a write is an error. `jnp.sum`
            adds up what each example adds to the value that it read, so that a running sum is one
            over all examples. Inside the `vmap` each example reads back what it wrote itself. A
            value that does not depend on the mapped axis is written once, as it is.
        axes: the logical names of the axes, as for `param`.
        converter: applied to every value the field is given, such as `jnp.asarray`.
        **options: `default`, `default_factory`, `init`, `repr`, `kw_only` and `metadata`, as for
            `dataclasses.field`.

    Examples:
        >>> import jax.numpy as jnp
        >>> import oryxstate as ox
        >>> class Counter(ox.Module):
        ...     count: jnp.ndarray = ox.state(default_factory=lambda: jnp.array(0))
        ...     def call(self):
        ...         self.assign(count=self.count + 1)
        >>> _, counter = Counter().call_and_update()
        >>> int(counter.count)
        1
    """
    if isinstance(reduce, type(np.sum)):  # JAX keeps it as a parameter, which NumPy's cannot be
        given: Any = reduce
        reduce = getattr(jnp, given.__name__)
    return _field("state", converter, options, reduce, axes)


def static(*, converter: Callable[[Any], Any] | None = None, **options: Any) -> Any:
    """Declare a field that is configuration: hashable, no array, fixed while JAX traces.

    Args:
        converter: applied to every value the field is given, such as `tuple`.
        **options: `default`, `default_factory`, `init`, `repr`, `kw_only` and `metadata`, as for
            `dataclasses.field`.

    Examples:
        >>> import oryxstate as ox
        >>> class Power(ox.Module):
        ...     exponent: int = ox.static(default=2)
        ...     def call(self, x):
        ...         return x**self.exponent
        >>> Power(3)(2)
        8
    """
    return _field("static", converter, options)


class Layout(NamedTuple):
    """The fields of a module class, in order.

    Attributes:
        fields: all dataclass fields by name.
        infos: their specifiers by name.
        data: the names of fields that hold data: everything that is not static.
        static: the names of static fields.
        state: the names of state fields.
        children: the names of fields without a specifier.
        cached: the names of cached properties, which are not fields.
    """

    fields: dict[str, dataclasses.Field[Any]]
    infos: dict[str, FieldInfo]
    data: tuple[str, ...]
    static: tuple[str, ...]
    state: tuple[str, ...]
    children: tuple[str, ...]
    cached: tuple[str, ...]

    @classmethod
    def of(cls, module_class: type) -> Layout:
        """Return the layout of a dataclass."""
        fields = {f.name: f for f in dataclasses.fields(module_class)}
        infos = {name: info(f) for name, f in fields.items()}

        attributes = [item for base in module_class.__mro__ for item in vars(base).items()]
        cached = {k for k, value in attributes if isinstance(value, functools.cached_property)}
        return cls(
            fields,
            infos,
            data=tuple(name for name, i in infos.items() if not i.is_static),
            static=tuple(name for name, i in infos.items() if i.is_static),
            state=tuple(name for name, i in infos.items() if i.is_state),
            children=tuple(name for name, i in infos.items() if i.is_child),
            cached=tuple(cached),
        )
