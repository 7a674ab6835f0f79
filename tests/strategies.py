"""Hypothesis strategies for arrays and for modules of classes made up on the spot, and an oracle.

Every generated module has the same meaning, which `threaded` spells out with state handed over by
hand: it adds its state and its params to its input, moves its state one step on, and calls its
children, as often and in the kind of loop that its static fields say.
"""

import enum
import functools
import types
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

import oryxstate as ox

DTYPES = ("float32", "float16", "bfloat16", "int32", "uint8", "bool", "weak", "key")


class Pair(NamedTuple):
    """A named tuple among the containers."""

    left: Any
    right: Any


class Mode(enum.Enum):
    """An enumeration among the static values."""

    FAST = 1
    SLOW = 2


def double(x: jax.Array) -> jax.Array:
    """A function among the static values."""
    return 2 * x


def relu(x: jax.Array) -> jax.Array:
    """An activation; pickle cannot find those of JAX by name."""
    return jax.nn.relu(x)


class Affine(eqx.Module):
    """An Equinox child, with leaves that are not arrays."""

    weight: jax.Array
    activation: Any
    rate: float = 0.5

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.activation(x + self.rate * jnp.sum(self.weight))


def make_array(dtype: str, shape: tuple[int, ...], seed: int) -> jax.Array:
    """Small values, different for each seed."""
    if dtype == "key":
        return jax.random.split(jax.random.key(seed), shape) if shape else jax.random.key(seed)
    if dtype == "weak":
        return jnp.asarray(float(seed % 5))
    values = (np.arange(np.prod(shape, dtype=int)).reshape(shape) + seed) % 3
    return jnp.asarray(values).astype(dtype)


shapes = st.sampled_from([(), (2,), (2, 3), (0,)])
seeds = st.integers(0, 99)
arrays = st.builds(make_array, st.sampled_from(DTYPES), shapes, seeds)
inputs = st.integers(-3, 3).map(lambda n: jnp.float32(n / 2))
statics = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([0.0, -0.0, 1.0, 2.0, "a", "", b"a", Mode.FAST, double, float]),
    st.tuples(st.integers(0, 2), st.sampled_from([1, 1.0, True])),
    st.frozensets(st.integers(0, 2)),
)
values = st.recursive(
    arrays,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.tuples(inner, st.none()),
        st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    ),
    max_leaves=3,
)
names = st.sampled_from([None, None, None, "f0", "f1", "encoder", "a.b"])


def is_module(x: Any) -> bool:
    """Where to stop when children are looked for."""
    return isinstance(x, ox.Module | Affine)


def total(value: Any) -> jax.Array:
    """One number that depends on every leaf."""
    parts = [jnp.float32(0)]
    for leaf in jax.tree.leaves(value):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        leaf = jax.vmap(jax.random.uniform)(leaf.reshape(-1)) if is_key else leaf
        parts.append(jnp.sum(leaf.astype(jnp.float32)))
    return sum(parts[1:], parts[0])


def step(value: Any) -> Any:
    """The next value of state, which always differs unless it is empty."""

    def leaf_step(x: jax.Array) -> jax.Array:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.vmap(lambda k: jax.random.fold_in(k, 1))(x.reshape(-1)).reshape(x.shape)
        if x.dtype == bool:
            return ~x
        return x + jnp.ones((), x.dtype) if jnp.issubdtype(x.dtype, jnp.integer) else 0.5 * x + 1

    return jax.tree.map(leaf_step, value)


class Node(ox.Module):
    """The base of generated classes; `KINDS` says what their fields are."""

    times: int = ox.static(default=1, kw_only=True)
    loop: str = ox.static(default="python", kw_only=True)

    def call(self, x: jax.Array) -> jax.Array:
        for field in self.STATE:
            x = x + total(getattr(self, field))
            self.assign(**{field: step(getattr(self, field))})
        for field in self.PARAM:
            x = x + total(getattr(self, field))
        for field in self.CHILD:
            for member in jax.tree.leaves(getattr(self, field), is_leaf=is_module):
                x = self._repeat(member, x)
        return x

    def _repeat(self, member: Any, x: jax.Array) -> jax.Array:
        if not is_module(member):
            return x + total(member)
        if self.loop == "scan":
            return jax.lax.scan(lambda h, _: (member(h), None), x, None, length=self.times)[0]
        if self.loop == "fori":
            return jax.lax.fori_loop(0, self.times, lambda _, h: member(h), x)
        for _ in range(self.times):
            x = member(x)
        return x


def threaded(module: Any, x: jax.Array) -> tuple[jax.Array, Any]:
    """What `call_and_update` must return, without the library's calls."""
    if not isinstance(module, Node):
        return module(x), module
    changed = {}
    for field in module.STATE:
        x = x + total(getattr(module, field))
        changed[field] = step(getattr(module, field))
    for field in module.PARAM:
        x = x + total(getattr(module, field))
    for field in module.CHILD:
        members, treedef = jax.tree.flatten(getattr(module, field), is_leaf=is_module)
        for i, member in enumerate(members):
            if not is_module(member):
                x = x + total(member)
                continue
            for _ in range(module.times):
                x, members[i] = threaded(members[i], x)
        changed[field] = jax.tree.unflatten(treedef, members)
    return x, module.replace(**changed)


def _init(self: Any, **fields: Any) -> None:
    for field, value in fields.items():
        setattr(self, field, value)


@functools.cache
def node_class(kinds: tuple[str, ...], own_init: bool = False) -> type[Node]:
    """The class with fields `f0`, `f1`, ... of these kinds; found by pickle in this file."""
    fields = {f"f{i}": kind for i, kind in enumerate(kinds)}
    body: dict[str, Any] = {"__module__": __name__, "KINDS": fields}
    body["__annotations__"] = dict.fromkeys(fields, Any)
    for kind in ("param", "state", "child"):
        body[kind.upper()] = tuple(f for f, k in fields.items() if k == kind)
    for field, kind in fields.items():
        if kind != "child":
            body[field] = getattr(ox, kind)()
    if own_init:
        body["__init__"] = _init
    name = "_".join(["Node", *kinds, *(["own"] if own_init else [])])
    globals()[name] = types.new_class(name, (Node,), exec_body=lambda ns: ns.update(body))
    return globals()[name]


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    member = st.one_of(inner, inner, arrays, st.none())
    return st.one_of(
        inner,
        inner,
        st.lists(inner, max_size=2),
        st.tuples(member, member),
        st.builds(Pair, member, inner),
        st.dictionaries(st.sampled_from(["b", "a", "x.y"]), member, max_size=2),
    )


def _nodes(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Node]:
    kinds = {"param": values, "state": values, "static": statics, "child": _containers(inner)}
    choice = st.sampled_from(["param", "state", "state", "static", "child", "child"])

    def of(layout: tuple[list[str], bool]) -> st.SearchStrategy[Node]:
        fields = {f"f{i}": kinds[kind] for i, kind in enumerate(layout[0])}
        options = {
            "name": names,
            "times": st.integers(0, 2),
            "loop": st.sampled_from(["python", "scan", "fori"]),
        }
        return st.builds(node_class(tuple(layout[0]), layout[1]), **fields, **options)

    return st.tuples(st.lists(choice, max_size=3), st.booleans()).flatmap(of)


_activations = st.sampled_from([double, relu])
_leaves = st.one_of(
    st.builds(Affine, arrays.filter(lambda a: a.dtype == "float32"), _activations), arrays
)
modules: st.SearchStrategy[Node] = _nodes(st.recursive(_leaves, _nodes, max_leaves=4))


def assert_same(actual: Any, expected: Any, *, exact: bool = True) -> None:
    """Structure, shapes, dtypes, weak types and values are equal; values nearly, unless `exact`."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    paired = zip(
        jax.tree_util.tree_flatten_with_path(actual)[0], jax.tree.leaves(expected), strict=True
    )
    for (path, a), e in paired:
        if not isinstance(e, jax.Array):  # a function or a number in an Equinox module
            assert a == e and type(a) is type(e), jax.tree_util.keystr(path)
            continue
        assert jax.typeof(a) == jax.typeof(e), jax.tree_util.keystr(path)
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, e = jax.random.key_data(a), jax.random.key_data(e)
        tolerance = 0 if exact else (2e-2 if a.dtype.itemsize == 2 else 1e-4)
        a, e = (np.asarray(v).astype(np.float64) for v in (a, e))
        np.testing.assert_allclose(
            a, e, rtol=tolerance, atol=tolerance, err_msg=jax.tree_util.keystr(path)
        )
