"""The Module base class: a frozen dataclass, a pytree, and a function of its state."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax

from oryxstate._errors import EffectError
from oryxstate._module import (
    _attributes,
    _classes,
    _construct,
    _derive,
    _hook,
    _live,
    _pytree,
    _static,
)
from oryxstate._module._fields import Layout, static
from oryxstate._module._pytree import AUX, PLACE, REPLACED, ROOT
from oryxstate._select._changes import At


class Module(metaclass=_construct.ModuleMeta):
    """A frozen dataclass whose state threads itself.

    Subclass it, annotate the fields, and write `call`. Inside a call `self.assign(field=value)`
    updates state, and so does every call of a submodule; `call_and_update` returns the output and
    the module with all updates.

    Fields are `ox.param()` (learned), `ox.state()` (updated by calls), `ox.static()`
    (configuration), or without specifier: other modules, containers of them, arrays (which are
    params).

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> class Mean(ox.Module):
        ...     total: jax.Array = ox.state()
        ...     count: jax.Array = ox.state()
        ...     def call(self, x):
        ...         self.assign(total=self.total + x, count=self.count + 1)
        ...         return self.total / self.count
        >>> mean = Mean(jnp.array(0.0), jnp.array(0))
        >>> y, mean = jax.jit(ox.call_and_update)(mean, 3.0)
        >>> y, mean = jax.jit(ox.call_and_update)(mean, 5.0)
        >>> float(y), int(mean.count)
        (4.0, 2)
    """

    __layout__: ClassVar[Layout]
    __generated_init__: ClassVar[bool] = True
    __key__: ClassVar[Any] = jax.tree_util.GetAttrKey  # of a field, in key paths
    # The logical names of the axis along which what is in a field is stacked, and its state alone.
    __stacked__: ClassVar[Mapping[str, str]] = {}
    __state_stacked__: ClassVar[Mapping[str, str]] = {}
    if TYPE_CHECKING:

        @property
        def __keywords__(self) -> dict[str, bool]:
            """The keywords that the call gets from calls around, and whether it needs them."""
            ...
    else:
        __keywords__ = {}
        call_batched = None  # what an author may write, as a method

    name: str | None = static(default=None, kw_only=True)

    def __init_subclass__(cls, *, kw_only: bool = False, **kwargs: Any) -> None:
        _classes.check_options(cls, kwargs)
        super().__init_subclass__(**kwargs)
        _classes.make(cls, Module, kw_only=kw_only)
        _derive.derive_calls(cls, Module)

    @classmethod
    def __misused__(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """Return a better error text for arguments that are not the fields, if there is one."""
        return None

    # Frozen -----------------------------------------------------------------------------------

    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None:
            if _pytree.is_sealed(self):
                raise dataclasses.FrozenInstanceError(
                    f"cannot assign to field `{name}` of {type(self).__name__}: modules are "
                    f"frozen. Inside `call`, `self.assign({name}=...)` updates state; anywhere, "
                    f"`module.replace({name}=...)` makes a changed copy."
                )
            layout = self.__layout__
            if name not in layout.fields:
                raise AttributeError(
                    _construct.unknown_field(type(self), name, layout.fields)
                    + f" Declare it in the class body: `{name}: ... = ox.param()`."
                )
            vars(self)[name] = _construct.convert(layout.infos[name], value)

        def __delattr__(self, name: str) -> None:
            raise dataclasses.FrozenInstanceError(
                f"cannot delete field `{name}` of {type(self).__name__}: modules are frozen."
            )

        def __getattr__(self, name: str) -> Any:
            return _attributes.read(self, name)

    def __getstate__(self) -> dict[str, Any]:
        module = _pytree.value_of(self) if _live.is_live(self) else self
        static = set(self.__layout__.static)
        values = {name: getattr(module, name) for name in self.__layout__.fields}
        return {k: _static.by_name(v) if k in static else v for k, v in values.items()}

    def __setstate__(self, fields: dict[str, Any]) -> None:
        _construct.restore(self, {k: _static.found(value) for k, value in fields.items()})

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        leaves, treedef = jax.tree.flatten(_pytree.value_of(self))
        return jax.tree.unflatten(treedef, [copy.deepcopy(leaf, memo) for leaf in leaves])

    def __repr__(self) -> str:
        if _live.is_live(self) and self.__dict__[PLACE].ended:  # as a debugger asks
            return f"<{type(self).__name__} of a root call that has ended>"
        return _hook.views.text(_pytree.value_of(self))

    def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
        return _hook.views.draw(_pytree.value_of(self), path, subtree_renderer)

    # A container of variables -----------------------------------------------------------------

    def variables(self) -> dict[str, Any]:
        """Return the variables of this module by name: its params, its state and its children.

        A child stands under its `name` if it has one, else under the name of its field.

        Returns:
            A new dictionary.

        Raises:
            ValueError: if two variables have one name.
        """
        found: dict[str, Any] = {}
        for field in self.__layout__.data:
            value = getattr(self, field)
            own = value.name if _pytree.is_module(value) else None
            name = own or field
            if name in found:
                raise ValueError(
                    f"{type(self).__name__} has two variables named {name!r} (one is field "
                    f"`{field}`). Give the child another name: `child.replace(name=...)`."
                )
            found[name] = value
        return found

    def flatten(self) -> tuple[tuple[Any, ...], Any]:
        """Return the data of this module, one value per field, and everything static about it."""
        module = _pytree.value_of(self)
        return tuple(_pytree.stored(module, name) for name in self.__layout__.data), _pytree.aux_of(
            module
        )

    @classmethod
    def unflatten(cls, static_data: Any, xs: tuple[Any, ...]) -> Self:
        """Put together what `flatten` took apart, also with other data; nothing is checked."""
        example = jax.tree.structure(object.__new__(cls)._with(static_data, xs))
        return jax.tree.unflatten(example, jax.tree.leaves(xs))

    def _with(self, aux: Any, xs: tuple[Any, ...]) -> Self:
        vars(self).update(zip(self.__layout__.data, xs, strict=True))
        vars(self)[AUX] = aux
        _pytree.register(type(self))
        return self

    def replace(self, **fields: Any) -> Self:
        """Return a copy with other values in some fields.

        Args:
            **fields: the new values, converted and checked as in construction.

        Raises:
            TypeError: for a field that is not there or a value it cannot hold.
            AnnotationError: for one that does not fit, while `check_annotations` is on.

        Examples:
            >>> import jax.numpy as jnp
            >>> import oryxstate as ox
            >>> class Scale(ox.Module):
            ...     scale: jnp.ndarray
            >>> Scale(jnp.ones(2)).replace(scale=jnp.zeros(3))
            Scale(scale=f32[3])
        """
        layout = self.__layout__
        for name in fields:
            if name not in layout.fields:
                raise TypeError(_construct.unknown_field(type(self), name, layout.fields))
        module = _pytree.value_of(self) if _live.is_live(self) else self
        values = {name: getattr(module, name) for name in layout.fields}
        new = object.__new__(type(self))
        for name, value in {**values, **fields}.items():
            known = name not in fields
            vars(new)[name] = value if known else _construct.check_value(module, name, value)
        if made := _hook.made:
            made(new, fields, self)
        _construct.split_and_freeze(new)
        scope = _pytree.scope_of(module)
        if scope is not None:
            new = _pytree.with_data(new, {}, scope=scope)
            vars(new)[ROOT] = module.__dict__.get(ROOT)
            replaced = [name for name in fields if name in layout.state]
            if replaced:
                vars(new)[REPLACED] = replaced
        return new

    @property
    def at(self) -> At[Self]:
        """Parts of this module, to be read and changed: `model.at[selection].set(value)`.

        The selection is one that `oryxstate.select` makes, or a path or a class. `get`, `count` and
        `paths` tell what is selected; `set`, `apply`, `cast` and `take` return a changed copy.

        Examples:
            >>> import jax, jax.numpy as jnp
            >>> import oryxstate as ox
            >>> from oryxstate import nn
            >>> model = ox.init(nn.Dense.of(2))(jax.random.key(0), jnp.ones(3))
            >>> model.at["bias"].set(1.0).bias
            Array([1., 1.], dtype=float32)
            >>> model.at["**"].cast(jnp.bfloat16)
            Dense(kernel=bf16[3,2], bias=bf16[2])
        """
        return At(self)

    # A function of state ----------------------------------------------------------------------

    def assign(self, **fields: Any) -> None:
        """Write state of this module, within a root call.

        Args:
            **fields: new values of state fields, of the structure, shape and dtype they have.
                Python scalars and weakly typed values are cast.

        Raises:
            EffectError: outside a root call, or if this module is not a part of it.
            AttributeError: for a field that is not declared `ox.state()`.
            ValueError: for a value of another structure, shape or dtype.
        """
        layout, kind = self.__layout__, type(self).__name__
        for name in fields:
            if name not in layout.state:
                declared = ", ".join(layout.state) or "none"
                raise AttributeError(
                    f"cannot assign `{name}` of {kind}: only fields declared `ox.state()` are "
                    f"updated by calls (here: {declared}). `module.replace({name}=...)` makes a "
                    "changed copy."
                )
        live = _live.resolve(self)
        if live is None:
            raise EffectError(_derive.not_in_root(self, fields))
        place = live.__dict__[PLACE]
        checked = {name: place.conform(name, value) for name, value in fields.items()}
        for name, leaves in checked.items():
            place.write(name, leaves, layout.infos[name].reduce)

    # What is not written is set in each class (see `_derive.py`); these stand for nothing written.

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module.

        Inside a root call its state is read from and written to its place in the root; outside, the
        output is returned and the update dropped, since a module is a value.
        """
        raise NotImplementedError(_derive.nothing_written(self, "__call__"))

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Return the output: what authors write."""
        raise NotImplementedError(_derive.nothing_written(self, "call"))

    def call_and_update(self, *args: Any, **kwargs: Any) -> tuple[Any, Self]:
        """Return the output, and this module with the state that the call left."""
        raise NotImplementedError(_derive.nothing_written(self, "call_and_update"))

    def update(self, *args: Any, **kwargs: Any) -> Self:
        """Return this module with the state that the call left."""
        raise NotImplementedError(_derive.nothing_written(self, "update"))


_classes.make(Module, Module)
