"""Interceptions: calls of modules whose outputs are edited."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from oryxstate._capture._selected import Selected
from oryxstate._capture._watch import Watch, check_function, opened
from oryxstate._effects import _primitives
from oryxstate._effects._names import Name


class Site:
    """Where an edited output comes from.

    Attributes:
        path: the path of the module.
        module: the module.
        args: its positional arguments.
    """

    path: str
    module: Any
    args: tuple[Any, ...]

    def __init__(self, path: str, module: Any, args: tuple[Any, ...], counter: Name, out: Any):
        self.path, self.module, self.args = path, module, args
        self._counter, self._out = counter, out

    @functools.cached_property
    def call(self) -> Any:
        """How many calls of this path came before: an int32 scalar, in a loop the iteration."""
        (count,) = _primitives.read(self._counter, _COUNT)
        return count

    @functools.cached_property
    def example(self) -> Any:
        """Which example of the surrounding `vmap`s this is, counted through: an int32 scalar."""
        ties = [jax.lax.stop_gradient(x) for x in jax.tree.leaves((self.args, self._out))]
        return _example(jnp.int32(0), jnp.int32(1), *ties)


_COUNT = (jax.typeof(np.int32(0)),)  # NumPy's: an import must not start a backend


@custom_vmap
def _example(index: Any, stride: Any, *ties: Any) -> Any:
    return index


@_example.def_vmap
def _(size: int, mapped: list[bool], index: Any, stride: Any, *ties: Any) -> tuple[Any, bool]:
    if not any(mapped[2:]):
        return _example(index, stride, *ties), False
    each = jnp.arange(size, dtype=jnp.int32) * stride
    return _example(jax.vmap(lambda i: i + index)(each), stride * size, *ties), True


class _Interception(Watch):
    def __init__(self, selected: Selected, edit: Callable[[Any, Site], Any]):
        super().__init__(selected)
        self.edit = edit

    @property
    def key(self) -> Any:
        return *super().key, self.edit

    @property
    def matched(self) -> bool:
        return bool(self.frame.variables)

    def meet(self, path: str, module: Any, args: tuple, out: Any) -> Any:
        counter = Name(self.level, path, "calls")
        site = Site(path, module, args, counter, out)
        new = self.edit(out, site)
        (count,) = _primitives.read(counter, _COUNT)
        _primitives.write(counter, (count + 1,))
        return _like(new, out, path)


def _like(new: Any, old: Any, path: str) -> Any:
    """An edited output of the same structure, shapes and dtypes as the output."""
    structures = jax.tree.structure(new), jax.tree.structure(old)
    shapes = [
        [(jnp.shape(x), jnp.result_type(x)) for x in jax.tree.leaves(tree)] for tree in (new, old)
    ]
    if structures[0] != structures[1] or shapes[0] != shapes[1]:
        raise ValueError(
            f"the output of '{path}' is {_specs(old)}, but it was edited to {_specs(new)}. Return "
            "a value of the same structure, shapes and dtypes."
        )
    return new


def _specs(tree: Any) -> str:
    return str(jax.tree.map(lambda x: f"{jnp.result_type(x)}{list(jnp.shape(x))}", tree)).replace(
        "'", ""
    )


def intercept(
    function: Callable[..., Any], selection: Any, edit: Callable[[Any, Site], Any]
) -> Callable[..., Any]:
    """Return a function in which the outputs of some modules are edited.

    For activation patching, steering and ablation: the model is not rewritten for it. Derivatives
    are those of the edited program.

    Args:
        function: a module, or any function that calls modules.
        selection: the modules, as `oryxstate.capture` takes it.
        edit: called as `edit(output, site)` where a selected module returns, gives what it returns
            instead: of the same structure, shapes and dtypes. `site.path`, `site.module` and
            `site.args` say which call it is, `site.call` how many of this path came before (in a
            loop the iteration), `site.example` which example of a `vmap`, both traced integers.

    Returns:
        A function with the arguments of `function` that returns its output.

    Raises:
        ValueError: where it runs, if modules were called but none is selected, or an edited output
            differs in structure, shape or dtype.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> deep = nn.Repeat.of(nn.Lambda.of(lambda x: x + 1), 3)
        >>> model = ox.init(deep)(jax.random.key(0), jnp.zeros(2))
        >>> def zero_second(y, site):
        ...     return jnp.where(site.call == 1, 0.0, y)
        >>> ox.intercept(model, "layers", zero_second)(jnp.zeros(2))
        Array([1., 1.], dtype=float32)
    """
    selected = Selected(selection)
    check_function("intercept", function)

    def edited(*args: Any, **kwargs: Any) -> Any:
        watch = _Interception(selected, edit)
        with opened(watch):
            out = function(*args, **kwargs)
            watch.check()
            return out

    return edited
