"""Laws of what calls do to state: its random keys, its counters, its types with 64 bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from oryxstate import _tree
from oryxstate._select._places import STATE, places, with_leaves
from oryxstate.testing._differences import difference, is_key, type_difference
from oryxstate.testing._laws._case import Case, law, sentence
from oryxstate.testing._laws._faults import Fault, NotApplicable, gist


@law(kinds=["module"], otherwise="nothing says which of its arrays are state")
def keys_advance(case: Case) -> None:
    """A random key in the state is another after a call that draws from it."""
    leaves = [place for place in places(case.module) if place.is_leaf]
    keys = {i: x for i, x in enumerate(leaves) if x.kind == STATE and is_key(x.value)}
    if not keys:
        raise NotApplicable("no random key is in its state")
    y, new = case.jitted(case.module, case.inputs)
    after = jax.tree.leaves(new)
    for i, key in keys.items():
        if difference(after[i], key.value) is not None:
            continue
        other = with_leaves(case.module, {i: _another(key.value)})
        if difference(case.jitted(other, case.inputs)[0], y, case.tolerance) is not None:
            raise Fault(
                f"the output depends on the key `{key.path}`, which the call leaves as it is: each "
                "call draws the same numbers. Split it in the call, `key, own = "
                "jax.random.split(self.key)`, and `self.assign(key=key)`."
            )


def _another(key: Any) -> Any:
    return jax.random.split(key.reshape(-1)[0], key.size).reshape(key.shape)


@law
def counters_do_not_wrap(case: Case) -> None:
    """No counter of 8 or 16 bits starts again at its lowest value."""
    narrow = list(_narrow_integers(case.module))
    if not narrow:
        raise NotApplicable("it has no integers of 8 or 16 bits")
    for position, path, dtype in narrow:
        most, least = jnp.iinfo(dtype).max, jnp.iinfo(dtype).min
        if (_after(case, position, most - 1) == most).any() and (
            _after(case, position, most) == least
        ).any():
            raise Fault(
                f"`{path}` is {np.dtype(dtype).name} and counts calls: after {most} comes {least}. "
                "Count in int32, or stop at the highest value, `jnp.minimum`."
            )


def _narrow_integers(module: Any) -> Iterator[tuple[int, str, Any]]:
    """Yield the position, path and dtype of each array of small integers."""
    for i, (path, leaf) in enumerate(_tree.named_leaves(module).items()):
        dtype = jax.typeof(leaf).dtype
        if jnp.issubdtype(dtype, jnp.integer) and jnp.iinfo(dtype).bits in (8, 16):
            yield i, path, dtype


def _after(case: Case, position: int, value: int) -> np.ndarray:
    """Return an array after a call that started with this value in all of it."""
    leaf = jax.tree.leaves(case.module)[position]
    module = with_leaves(case.module, {position: jnp.full_like(leaf, value)})
    return np.asarray(jax.tree.leaves(case.jitted(module, case.inputs)[1])[position])


@law
def stable_types_in_x64(case: Case) -> None:
    """With `jax_enable_x64` too, an update keeps the shape and dtype of each leaf."""
    module, inputs = _tree.abstract((case.module, case.inputs))
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        try:
            _, new = jax.eval_shape(case.run, module, inputs)
        except Exception as error:
            raise Fault(f"with 64 bits the call raised {gist(error)}. {_REMEDY}") from error
        found = type_difference(new, module)
    if found is not None:
        ways = "after a call with 64 bits", "before"
        raise Fault(f"{sentence(found, 'the updated module', *ways)} {_REMEDY}")


_REMEDY = (
    "A constant without a dtype, `jnp.zeros(3)`, or a sum of integers has 64 bits there. Give the "
    "dtype of the state, `x.astype(self.count.dtype)`."
)
