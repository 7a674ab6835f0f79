"""Strategies of arrays, for a jaxtyping annotation, a spec, or any array."""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

from oryxstate._annotations import _hints
from oryxstate._tree import ArraySpec
from oryxstate.testing._dimensions import Scope, Sizes, draw_shape, scopes

# The dtype of an array is drawn from the first line with a dtype that the annotation admits.
_DTYPES = (
    ("float32", "int32", "float64", "int64"),
    ("uint8", "uint32", "complex64", "complex128", "bool", "prng_key"),
    ("bfloat16", "float16", "int8", "int16", "uint16", "uint64", "int4", "uint4"),
    ("int2", "uint2", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz"),
    ("float8_e5m2", "float8_e5m2fnuz", "float4_e2m1fn"),
)
_WIDE = ("float64", "int64", "uint64", "complex128")
_seeds = st.integers(0, 2**31 - 1)


class Policy(NamedTuple):
    """The range of numbers in arrays."""

    minimum: float = -10
    maximum: float = 10
    finite: bool = True


def arrays(
    annotation: Any,
    *,
    sizes: Sizes | Mapping[str, Any] | None = None,
    minimum: float = -10,
    maximum: float = 10,
    finite: bool = True,
) -> st.SearchStrategy[Any]:
    """Return a strategy of JAX arrays.

    Axes of one name have one length, from 1 to 4 unless `sizes` says otherwise, and `*batch` or
    `...` are up to two axes. Where an annotation admits several dtypes the usual ones are drawn:
    float32 and int32 (with `jax_enable_x64` float64 and int64 as well), else uint8 and uint32, else
    complex64, else any other. Examples shrink to few zeros.

    Args:
        annotation: of jaxtyping, such as `Float[Array, "b c"]`; a union of such; `jax.Array`; a
            spec (`ArraySpec`, `jax.ShapeDtypeStruct`).
        sizes: lengths of axes by name; a `Sizes` shares them with other strategies.
        minimum: the lowest number.
        maximum: the highest number.
        finite: whether nan, inf and -inf are left out.

    Raises:
        TypeError: if it does not annotate an array, or JAX has none of its dtypes.

    Examples:
        >>> from hypothesis import find
        >>> from jaxtyping import Array, Float
        >>> from oryxstate.testing import arrays
        >>> find(arrays(Float[Array, "n 2*n-1"]), lambda x: bool((x > 1).any()))
        Array([[2.]], dtype=float32)
    """
    arms = arms_of(_hints.meant(annotation))
    if not all(map(is_array_hint, arms)):
        raise TypeError(
            f"arrays: {annotation!r} is not an annotation of an array. Give `Float[Array, 'b c']` "
            "or "
            "the like, `jax.Array`, or an `ArraySpec`; for anything else there is `values`."
        )
    if minimum > maximum:
        raise ValueError(f"arrays: minimum {minimum} is above maximum {maximum}.")
    return _arrays(arms, scopes(sizes), Policy(minimum, maximum, finite))


@st.composite
def _arrays(draw: Any, arms: tuple, scopes: st.SearchStrategy[Scope], policy: Policy) -> Any:
    return draw_array(draw, draw(st.sampled_from(arms)), draw(scopes), policy)


def array_specs(
    annotation: Any = jax.Array, *, sizes: Sizes | Mapping[str, Any] | None = None
) -> st.SearchStrategy[ArraySpec]:
    """Return a strategy of the specs that `arrays` of this annotation have.

    Args:
        annotation: as for `arrays`.
        sizes: lengths of axes by name.

    Examples:
        >>> from hypothesis import find
        >>> from jaxtyping import Array, Float
        >>> from oryxstate.testing import array_specs
        >>> find(array_specs(Float[Array, "b 3"]), lambda spec: spec.size > 3)
        float32[2,3]
    """
    arms = arms_of(_hints.meant(annotation))
    if not all(map(is_array_hint, arms)):
        raise TypeError(f"array_specs: {annotation!r} is not an annotation of an array.")
    return _array_specs(arms, scopes(sizes))


@st.composite
def _array_specs(draw: Any, arms: tuple, scopes: st.SearchStrategy[Scope]) -> ArraySpec:
    return draw_spec(draw, draw(st.sampled_from(arms)), draw(scopes))


@st.composite
def keys(draw: Any) -> jax.Array:
    """Return a strategy of random keys, which shrink to `jax.random.key(0)`.

    Examples:
        >>> from hypothesis import find
        >>> from oryxstate.testing import code, keys
        >>> print(code(find(keys(), lambda key: True)))
        jax.random.key(0)
    """
    return jax.random.key(draw(_seeds))


def pytrees(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return a strategy of a leaf, or of lists, tuples and dicts of leaves, which may be empty.

    Args:
        leaves: strategy of the leaves.

    Examples:
        >>> from hypothesis import find
        >>> from hypothesis import strategies as st
        >>> from oryxstate.testing import pytrees
        >>> find(pytrees(st.just(0)), lambda tree: len(jax.tree.leaves(tree)) == 2)
        [0, 0]
    """
    return st.recursive(leaves, _containers, max_leaves=4)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    )


def is_array_hint(hint: Any) -> bool:
    """Return whether a value of this annotation is an array."""
    if isinstance(hint, ArraySpec | jax.ShapeDtypeStruct):
        return True
    return isinstance(hint, type) and issubclass(
        hint, jax.Array | np.ndarray | jaxtyping.AbstractArray
    )


def is_union(hint: Any) -> bool:
    """Return whether an annotation is `X | Y`."""
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def arms_of(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, None first; `PRNGKeyArray` is typed keys alone."""
    if not is_union(annotation):
        return (annotation,)
    arms = [each for arm in typing.get_args(annotation) for each in arms_of(_hints.meant(arm))]
    arms.sort(key=lambda arm: arm is not types.NoneType)
    dtypes = [getattr(arm, "dtypes", None) for arm in arms]
    old_keys = ("uint32",) if ("prng_key",) in dtypes else ()
    return tuple(arm for arm, kinds in zip(arms, dtypes, strict=True) if kinds != old_keys)


def leaf_name(structure: str | None, index: int) -> str | None:
    """Return the name of a leaf of a structure, before that of an axis `?n`."""
    return None if structure is None else f"leaf {index} of {structure} "


def draw_spec(draw: Any, hint: Any, scope: Scope) -> ArraySpec:
    """Draw the spec of one array."""
    shape, dtype = _shape_and_dtype(draw, hint, scope)
    return ArraySpec(shape, jax.random.key(0).dtype if dtype is jax.dtypes.prng_key else dtype)


def draw_array(draw: Any, hint: Any, scope: Scope, policy: Policy) -> Any:
    """Draw one array whose named axes have the lengths of the scope."""
    shape, dtype = _shape_and_dtype(draw, hint, scope)
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        seeds = draw(numpy_strategies.arrays(np.int64, shape, elements=_seeds))
        made = [jax.random.key(int(seed)) for seed in seeds.flat]
        return made[0] if shape == () else _stacked(made, shape)
    values = _numbers(draw, np.dtype(dtype), shape, policy)
    return values if _array_type(hint) is np.ndarray else jnp.array(values)


def _stacked(made: list[jax.Array], shape: tuple[int, ...]) -> jax.Array:
    like = jax.random.key(0)  # there may be none
    data = [np.asarray(jax.random.key_data(key)) for key in (*made, like)]
    words = np.stack(data)[:-1].reshape(*shape, *data[0].shape)
    return jax.random.wrap_key_data(jnp.array(words), impl=jax.random.key_impl(like))


def _array_type(hint: Any) -> Any:
    """`np.ndarray` or `jax.Array`, whatever else jaxtyping was told."""
    kind = hint if isinstance(hint, type) and hint is np.ndarray else None
    kind = kind or getattr(hint, "array_type", None)
    return np.ndarray if kind is np.ndarray else jax.Array


def _shape_and_dtype(draw: Any, hint: Any, scope: Scope) -> tuple[tuple[int, ...], Any]:
    if isinstance(hint, ArraySpec | jax.ShapeDtypeStruct):
        return (*scope.leading, *hint.shape), hint.dtype
    typed = issubclass(hint, jaxtyping.AbstractArray)
    shape = draw_shape(draw, hint.dim_str if typed else "...", scope)
    names = _dtypes(hint) if typed else _available(_DTYPES[0])
    name = draw(st.sampled_from(names))
    return shape, (jax.dtypes.prng_key if name == "prng_key" else np.dtype(name))


def _dtypes(annotation: Any) -> list[str]:
    """Return the names of the dtypes to draw from."""
    for line in _DTYPES:
        admitted = [name for name in line if _admits(annotation.dtypes, name)]
        if _available(admitted):
            return _available(admitted)
    names = [str(getattr(d, "pattern", d)) for d in annotation.dtypes]
    wide = any(_admits(annotation.dtypes, name) for name in _WIDE)
    hint = " Enable it: `jax.config.update('jax_enable_x64', True)`." if wide else ""
    raise TypeError(
        f"no array can be drawn for {annotation.__name__}: JAX has no dtype {', '.join(names)} "
        f"here.{hint}"
    )


def _available(names: Any) -> list[str]:
    return [
        name
        for name in names
        if (name not in _WIDE or jax.config.jax_enable_x64)  # type: ignore[attr-defined]
        and (name == "prng_key" or hasattr(jnp, name))
    ]


def _admits(dtypes: Any, name: str) -> bool:
    if not isinstance(dtypes, list | tuple):  # any at all
        return True
    return any(bool(d.match(name)) if isinstance(d, re.Pattern) else d == name for d in dtypes)


def _numbers(draw: Any, dtype: np.dtype, shape: tuple[int, ...], policy: Policy) -> np.ndarray:
    if dtype.kind in "biufc":
        return draw(numpy_strategies.arrays(dtype, shape, elements=_elements(dtype, policy)))
    wide = np.dtype("int32" if jnp.issubdtype(dtype, jnp.integer) else "float32")
    elements = _elements(dtype, policy)
    return draw(numpy_strategies.arrays(wide, shape, elements=elements)).astype(dtype)


def _elements(dtype: np.dtype, policy: Policy) -> st.SearchStrategy[Any]:
    """Return a strategy of numbers of a dtype, between bounds rounded to it."""
    if dtype == np.bool_:
        return st.booleans()
    if jnp.issubdtype(dtype, jnp.integer):
        info = jnp.iinfo(dtype)
        low, high = max(math.ceil(policy.minimum), info.min), min(policy.maximum, info.max)
        if low > high:
            raise ValueError(
                f"arrays: no {dtype.name} lies from {policy.minimum} to {policy.maximum}."
            )
        return st.integers(int(low), math.floor(high))
    if jnp.issubdtype(dtype, jnp.complexfloating):
        part = _elements(np.dtype("float32" if dtype.itemsize == 8 else "float64"), policy)
        return st.builds(complex, part, part)
    return _floats(dtype, policy)


def _floats(dtype: np.dtype, policy: Policy) -> st.SearchStrategy[float]:
    largest = float(jnp.finfo(dtype).max)
    low, high = (min(max(b, -largest), largest) for b in (policy.minimum, policy.maximum))
    width = {8: 64, 4: 32, 2: 16}.get(dtype.itemsize if dtype.kind == "f" else 4, 32)
    rounded = np.dtype(f"float{width}").type
    finite = st.floats(
        float(rounded(low)),
        float(rounded(high)),
        width=width,  # type: ignore[arg-type]
        allow_subnormal=False,  # which XLA takes for zero
    )
    return finite if policy.finite else finite | st.sampled_from([math.nan, math.inf, -math.inf])
