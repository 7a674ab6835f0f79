"""Captures: what modules were given and returned, and what was sown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from oryxstate import _tree
from oryxstate._capture._selected import Selected
from oryxstate._capture._watch import Watch, check_function, opened, running
from oryxstate._effects import _frames, _sown
from oryxstate._effects._names import Name
from oryxstate._module import _live


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Captured:
    """What a capture found, each by path: `{"encoder.layers[3]": value}`.

    A path has a list of values if its module was called, or the value was sown, more than once. A
    loop stacks values along a new first axis, and so does a `vmap` or a `shard_map`. A value of a
    branch that may not have been taken, or of a `lax.while_loop`, which keeps the last, is an
    `ox.Maybe`.

    Attributes:
        sown: what `ox.sow` was given, under the path of the module and the name.
        inputs: the positional arguments of the selected modules, a tuple for each call.
        outputs: what they returned.
        gradients: the cotangents of what they returned, where the captured function takes a
            gradient and `gradients=True`; None for leaves without one.
    """

    sown: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    gradients: dict[str, Any] = field(default_factory=dict)


class _Capture(Watch):
    def __init__(self, selected: Selected, gradients: bool):
        super().__init__(selected)
        self.gradients = gradients

    @property
    def key(self) -> Any:
        return *super().key, self.gradients

    @property
    def matched(self) -> bool:
        return any(name.field == "outputs" for name in self.frame.sown)

    def sow(self, path: str, kind: str, value: Any) -> None:
        leaves, treedef = jax.tree.flatten(jax.tree.map(_array, _live.detach(value)))
        _sown.sow(Name(self.level, path, kind), leaves, _sown.Form(treedef))

    def meet(self, path: str, module: Any, args: tuple, out: Any) -> Any:
        self.sow(path, "inputs", args)
        self.sow(path, "outputs", out)
        if not self.gradients:
            return out
        return tapped(out, lambda bars: self.sow(path, "gradients", bars))

    def found(self) -> Captured:
        """Everything that was collected."""
        found = Captured()
        for name, values in self.frame.sown.items():
            if name.field == "gradients":  # in the backward pass the last call comes first
                outputs = self.frame.sown.get(name._replace(field="outputs"), [])
                forms = [form for _, form in outputs]
                values = _aligned(values[::-1], forms)
            each = [jax.tree.unflatten(form.treedef, leaves) for leaves, form in values]
            sown = ".".join(filter(None, (name.path, name.field.removeprefix(_SOWN))))
            kind = found.sown if name.field.startswith(_SOWN) else getattr(found, name.field)
            key = sown if kind is found.sown else name.path
            kind[key] = each[0] if len(each) == 1 else each
        return found


def _array(leaf: Any) -> Any:
    return jnp.asarray(leaf) if _tree.is_array(leaf) or isinstance(leaf, complex | float) else None


def _aligned(values: list, forms: list[_sown.Form]) -> list:
    """Cotangents with the axes of loops and examples in the order in which the outputs have them.

    The backward pass of a mapped loop is a loop over mapped values.
    """
    return (
        [
            (tuple(_reordered(x, form.axes, like.axes) for x in leaves), form)
            for (leaves, form), like in zip(values, forms, strict=True)
        ]
        if len(values) == len(forms)
        else values
    )


def _reordered(x: Any, axes: tuple, like: tuple) -> Any:
    kinds, wanted = [axis is None for axis in axes], [axis is None for axis in like]
    if kinds == wanted or sorted(kinds) != sorted(wanted):
        return x
    loops, examples = (
        iter([i for i, k in enumerate(kinds) if k is kind]) for kind in (False, True)
    )
    order = [next(examples if kind else loops) for kind in wanted]
    return jnp.transpose(x, (*order, *range(len(order), jnp.ndim(x))))


_SOWN = "sown "  # no kind has a name with a space


def tapped(out: Any, watch: Callable[[Any], None]) -> Any:
    """Return the same value, whose cotangent is watched in the backward pass."""
    leaves, treedef = jax.tree.flatten(out)
    arrays = ((i, x) for i, x in enumerate(leaves) if _tree.is_array(x))
    at = [i for i, x in arrays if jnp.issubdtype(x.dtype, jnp.inexact)]

    @jax.custom_vjp
    def tap(values: list) -> list:
        return values

    def backward(_: None, bars: list) -> tuple[list]:
        found = dict(zip(at, bars, strict=True))
        watch(jax.tree.unflatten(treedef, [found.get(i) for i in range(len(leaves))]))
        return (bars,)

    tap.defvjp(lambda values: (values, None), backward)
    for i, value in zip(at, tap([leaves[i] for i in at]), strict=True):
        leaves[i] = value
    return jax.tree.unflatten(treedef, leaves)


def sow(value: Any, *, name: str) -> Any:
    """Name a value inside a call, for whoever captures it.

    Args:
        value: any pytree of arrays.
        name: its name, under the path of the module that is running.

    Returns:
        The value. Without an `oryxstate.capture` around this does nothing, at no cost in a
        compiled program.

    Examples:
        >>> import jax.numpy as jnp
        >>> import oryxstate as ox
        >>> class Net(ox.Module):
        ...     weight: jnp.ndarray
        ...     def call(self, x):
        ...         h = ox.sow(self.weight * x, name="hidden")
        ...         return jnp.tanh(h)
        >>> y, captured = ox.capture(Net(jnp.array(2.0)))(jnp.array(3.0))
        >>> captured.sown
        {'hidden': Array(6., dtype=float32, weak_type=True)}
    """
    if not isinstance(name, str) or not name:
        raise TypeError(f"`ox.sow` takes a name, `ox.sow(value, name='hidden')`, got {name!r}.")
    for frame in _frames.captures():
        if isinstance(frame.model, _Capture):
            frame.model.sow(running(), _SOWN + name, value)
    return value


def capture(
    function: Callable[..., Any], selection: Any = None, *, gradients: bool = False
) -> Callable[..., tuple[Any, Captured]]:
    """Return a function that also returns values from inside: of modules, and what was sown.

    What is captured is what the function computes, wherever it computes it: under `jax.jit`,
    `jax.grad`, `jax.vmap`, in loops and branches, once under `jax.checkpoint`. The captured
    function may itself be jitted, mapped and differentiated.

    Args:
        function: a module, or any function that calls modules, such as
            `oryxstate.call_and_update` or the gradient of a loss.
        selection: the modules whose inputs and outputs are captured: a path with `*` and `**`
            (`"blocks[2:5]"`, `"**.attention"`), a class, a function `(path, module) -> bool`, or a
            list of these. None selects no module; what is sown is captured in any case.
        gradients: whether to capture also the cotangents of the outputs, which needs reverse-mode
            differentiation inside `function`.

    Returns:
        A function with the arguments of `function` that returns its output and a `Captured`.

    Raises:
        ValueError: where it runs, if modules were called but none is selected.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> chain = nn.Dense.of(4) >> nn.Lambda.of(jnp.tanh) >> nn.Dense.of(2)
        >>> model = ox.init(chain)(jax.random.key(0), jnp.ones(3))
        >>> y, captured = jax.jit(ox.capture(ox.call, nn.Dense))(model, jnp.ones(3))
        >>> {path: value.shape for path, value in captured.outputs.items()}
        {'layers[0]': (4,), 'layers[2]': (2,)}
        >>> loss = lambda model: ox.call(model, jnp.ones(3)).sum()
        >>> step = ox.capture(jax.grad(loss), "layers[2]", gradients=True)
        >>> step(model)[1].gradients
        {'layers[2]': Array([1., 1.], dtype=float32)}
    """
    selected = Selected(selection)
    check_function("capture", function)

    def captured(*args: Any, **kwargs: Any) -> tuple[Any, Captured]:
        watch = _Capture(selected, gradients)
        with opened(watch):
            out = function(*args, **kwargs)
            watch.check()
            return out, watch.found()

    return captured
