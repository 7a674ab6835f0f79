"""The first value of a call that is not finite."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from oryxstate import _api, _grad, _jax, _tree
from oryxstate._capture._captured import tapped
from oryxstate._capture._selected import Selected
from oryxstate._capture._watch import Watch, check_function, opened
from oryxstate._effects import _sown
from oryxstate._effects._names import Name
from oryxstate._function_runs import has_module
from oryxstate._module import _pytree


@dataclass(frozen=True)
class Nonfinite:
    """Where the first NaN or infinity came up.

    Attributes:
        path: of the module; empty for the model itself.
        kind: "output" if the module made it from finite inputs; "input" if it came with the
            arguments, from the code around; "gradient" if the derivative of the module made it in
            the backward pass, or handed it over; "result" if only what the function returns at
            this path is not finite, such as the derivative with respect to a parameter.
        iteration: the index in each loop around the module, outermost first.
        example: the index in each `vmap` and mesh axis around it.
    """

    path: str
    kind: str
    iteration: tuple[int, ...] = ()
    example: tuple[int, ...] = ()

    def __str__(self) -> str:
        where = f"'{self.path}'" if self.path else "the model"
        if self.kind == "result":
            return f"the result is not finite at {where}"
        loop = f", iteration {', '.join(map(str, self.iteration))}" if self.iteration else ""
        example = f", example {', '.join(map(str, self.example))}" if self.example else ""
        return f"{self.kind} of {where}{loop}{example} is not finite"


def find_nonfinite(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Nonfinite | None:
    """Find the first value, in order of execution, that is NaN or infinite.

    Args:
        function: a model, of which the gradient of the sum of its outputs is looked at too; or any
            function that calls modules, such as a training step. It may be jitted.
        *args: its arguments.
        **kwargs: its keywords.

    Returns:
        The place of the first input or output of a module, or cotangent of an output, that is not
        finite; None if all are finite.

    Raises:
        TypeError: inside `jax.jit` and other transformations, where there are no values to look at.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> chain = nn.Dense.of(4) >> nn.Lambda.of(jnp.log) >> nn.Dense.of(2)
        >>> model = ox.init(chain)(jax.random.key(0), jnp.ones(3))
        >>> print(ox.find_nonfinite(model, jnp.ones(3)))
        output of 'layers[1]' is not finite
    """
    check_function("find_nonfinite", function)
    if any(isinstance(x, _jax.Tracer) for x in jax.tree.leaves((args, kwargs))):
        raise TypeError(
            "`ox.find_nonfinite` looks at values, which there are none of inside a transformation. "
            "Call it outside: `ox.find_nonfinite(jax.jit(step), model, batch)`."
        )
    if _pytree.is_module(function):
        function = functools.partial(_differentiated, function)
    try:
        return _first(function, args, kwargs, gradients=True)
    except TypeError as error:
        if "forward-mode autodiff" not in str(error):
            raise
        return _first(function, args, kwargs, gradients=False)


def _differentiated(model: Any, *args: Any, **kwargs: Any) -> Any:
    """Return the gradient of the sum of a model's outputs, or its output if there is none."""

    def total(model: Any) -> Any:
        leaves = jax.tree.leaves(_api.call(model, *args, **kwargs))
        floats = [x for x in leaves if jnp.issubdtype(jnp.result_type(x), jnp.floating)]
        return sum((jnp.sum(x, dtype=jnp.float32) for x in floats), jnp.float32(0))

    learned, _ = _grad.partition(model)
    return _grad.grad(total)(model) if jax.tree.leaves(learned) else total(model)


class _Search(Watch):
    """Sows one flag for each value, all under one name, so that they stay in order."""

    def __init__(self, gradients: bool):
        super().__init__(Selected(lambda path, module: True))
        self.gradients = gradients

    @property
    def key(self) -> Any:
        return type(self), self.gradients

    @property
    def matched(self) -> bool:
        return True

    @property
    def name(self) -> Name:
        return Name(self.level, "", "finite")

    def begins(self, path: str, module: Any, args: tuple) -> tuple:
        if any(map(has_module, args)):  # as it is: what is flattened is a value
            return args
        self._sow(path, "input", args)
        return self._tapped(path, args)

    def meet(self, path: str, module: Any, args: tuple, out: Any) -> Any:
        self._sow(path, "output", out)
        return self._tapped(path, out)

    def _tapped(self, path: str, value: Any) -> Any:
        if not self.gradients:
            return value
        return tapped(value, lambda bars: self._sow(path, "gradient", bars))

    def _sow(self, path: str, kind: str, value: Any) -> None:
        floats = filter(_is_float, jax.tree.leaves(value))
        flag = functools.reduce(
            jnp.logical_or, [~jnp.isfinite(x).all() for x in floats], jnp.array(False)
        )
        # Where it is from is static: a part of the structure.
        _sown.sow(self.name, [flag], _sown.Form(jax.tree.structure({(path, kind): 0})))


def _first(function: Callable[..., Any], args: tuple, kwargs: dict, gradients: bool) -> Any:
    search = _Search(gradients)
    with opened(search):
        out = function(*args, **kwargs)
        entries = search.frame.sown.get(search.name, [])
    found = [place for i, entry in enumerate(entries) for place in _places(i, *entry)]
    if not found:
        return _in_result(out)
    *_, axes, index, (path, kind) = min(found, key=functools.cmp_to_key(_compare))
    pairs = list(zip(axes, index, strict=True))
    loops = tuple(i for axis, i in pairs if axis is not None)
    return Nonfinite(path, kind, loops, tuple(i for axis, i in pairs if axis is None))


def _in_result(out: Any) -> Nonfinite | None:
    """Look at derivatives with respect to parameters, which pass no call of a module."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(out)[0]:
        if _is_float(leaf) and not jnp.isfinite(leaf).all():
            return Nonfinite(_tree.keystr(path), "result")
    return None


def _is_float(leaf: Any) -> bool:
    if isinstance(leaf, float | complex):
        return True
    return _tree.is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def _places(order: int, leaves: tuple, form: _sown.Form) -> list[tuple]:
    value = jax.tree.unflatten(form.treedef, leaves)
    value = value.value if form.is_maybe else value
    ((where, flag),) = value.items()
    return [(order, form.axes, tuple(index.tolist()), where) for index in np.argwhere(flag)]


def _compare(one: tuple, other: tuple) -> int:
    """Which comes first: in a loop that both are in, by iteration, else in the order of the code.

    The number of a loop that runs backwards is negative.
    """
    loops = [
        [(axis, i) for axis, i in zip(axes, index, strict=True) if axis is not None]
        for _, axes, index, _ in (one, other)
    ]
    for (loop, i), (same, j) in zip(*loops, strict=False):
        if loop != same:
            break
        if i != j:
            return (1 if i > j else -1) * (1 if loop > 0 else -1)
    keys = [(order, index) for order, _, index, _ in (one, other)]
    return (keys[0] > keys[1]) - (keys[0] < keys[1])
