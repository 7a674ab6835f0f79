"""Summaries of models: what is in them, what their modules return, and what that costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from oryxstate import _api, _tree
from oryxstate._look import _calls, _tables
from oryxstate._module import _pytree, _takes
from oryxstate._module._base import Module
from oryxstate._select._places import STATE, STATIC, nodes, places


class Row(NamedTuple):
    """A module in a summary, with all that is inside it.

    Attributes:
        path: where it stands in the model, empty for the model itself.
        kind: the name of its class.
        depth: the number of modules around it.
        out: the specs of what its first call returned, None if it was not called. Inside a `vmap`
            it is that of one example, inside a loop that of one iteration.
        params: the number of elements of its params.
        state: the number of elements of its state.
        bytes: what params and state take.
        flops: the floating-point operations of that call; None if there was none, or XLA does not
            tell.
    """

    path: str
    kind: str
    depth: int
    out: Any
    params: int
    state: int
    bytes: int
    flops: int | None


class Summary:
    """What `oryxstate.summary` returns: data, and a table as text and as HTML.

    Attributes:
        rows: the model and the modules in it, in the order of their fields.
    """

    def __init__(self, rows: tuple[Row, ...]):
        self.rows = rows

    def __rich__(self) -> Any:
        return _tables.rich_table(self.rows)

    def __repr__(self) -> str:
        return _tables.text(self.rows)

    def _repr_html_(self) -> str:
        return _tables.html(self.rows)


def summary(model: Any, *inputs: Any, depth: int | None = None, **keywords: Any) -> Summary:
    """Summarize a model: its modules, what they return, their arrays and operations.

    Nothing is computed, and a model that is not there yet is not allocated.

    Args:
        model: a module or a container of modules, with arrays or `jax.ShapeDtypeStruct`s in it; a
            template or a function that declares variables.
        *inputs: the inputs of a call: arrays, `ArraySpec`s, `jax.ShapeDtypeStruct`s or pytrees of
            them. Without inputs the table has no outputs and no operations.
        depth: fold modules that are deeper than this: 0 shows the model alone.
        **keywords: keywords of the call; `training` is False unless given.

    Returns:
        A `Summary`: `print` shows it, with the extra `train`; a notebook shows an HTML table;
        `rows` is the data. The operations are those that XLA's cost analysis counts, 2 * m * n for
        a product with an m by n matrix, and bodies of scans as often as they run.

    Raises:
        ValueError: if a template or a function comes without inputs.

    Examples:
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> chain = nn.Dense.of(32) >> nn.Dense.of(10)
        >>> print(ox.summary(chain, ox.ArraySpec((8, 16))))
        path        class    output          params   state   bytes    FLOPs
        ────────────────────────────────────────────────────────────────────
        (model)     Serial   float32[8,10]      874       0   3,496   13,648
        layers[0]   Dense    float32[8,32]      544       0   2,176    8,448
        layers[1]   Dense    float32[8,10]      330       0   1,320    5,200
    """
    inputs = _tree.abstract(inputs)
    if not _is_made(model):
        if not inputs:
            raise ValueError(
                "a template or a function has no arrays before it has seen an input. Give the "
                "specs of its inputs: `ox.summary(template, ox.ArraySpec((8, 16)))`."
            )
        init = _api.init(model)
        model = eqx.filter_eval_shape(lambda *xs: init(jax.random.key(0), *xs), *inputs)
    if "training" in _takes.taken_inside(model):
        keywords = {"training": False, **keywords}
    calls = _calls.record(model, inputs, keywords) if inputs else {}
    shown = [found for found in _modules(model) if depth is None or found[2] <= depth]
    return Summary(tuple(_row(*found, calls.get(found[0])) for found in shown))


def _is_made(model: Any) -> bool:
    """Tell whether there is nothing to initialize in a model."""
    leaves = jax.tree.leaves(model, is_leaf=_pytree.is_module)
    ready = [_pytree.is_module(leaf) or _tree.is_array(leaf) for leaf in leaves]
    return any(ready) if callable(model) else all(ready)


def _row(path: str, node: Any, depth: int, call: _calls.Call | None) -> Row:
    params, state, total = 0, 0, 0
    for place in places(node):
        if place.is_leaf and place.kind != STATIC:
            size = int(np.prod(place.value.shape, dtype=int))
            total += size * place.value.dtype.itemsize
            if place.kind == STATE:
                state += size
            else:
                params += size
    out, flops = (None, None) if call is None else (call.out, call.flops())
    return Row(path, type(node).__name__, depth, out, params, state, total, flops)


def _modules(model: Any) -> Iterator[tuple[str, Any, int]]:
    """Yield the model and the modules in it: `(path, module, depth)`."""
    for path, node, inside in nodes(model):
        if _is_module(type(node)) or not inside:
            yield path, node, bool(inside) + sum(map(_is_module, inside[1:]))


def _is_module(cls: type) -> bool:
    return issubclass(cls, Module | eqx.Module)
