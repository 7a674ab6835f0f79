"""Drawn modules: only those that a class allows, and every kind of them."""

from __future__ import annotations

import abc
import dataclasses
import enum
import pickle
from collections.abc import Callable
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from beartype import beartype
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray, PyTree, jaxtyped
from strategies import assert_same

import oryxstate as ox
from oryxstate import nn
from oryxstate.testing import modules, values

N = TypeVar("N", bound=int)


class Mode(enum.Enum):
    FAST = 1
    SLOW = 2


class Linear(ox.Module):
    kernel: Float[Array, "in out"] = ox.param()
    bias: Float[Array, "out"] | None = ox.param()
    count: Int[Array, ""] = ox.state()
    scale: float = ox.static(default=1.0)


class Pair(NamedTuple):
    left: Float[Array, "n"]
    right: Float[Array, "n"]


@dataclasses.dataclass(frozen=True)
class Config:
    size: int
    mode: Mode = Mode.FAST


class Affine(eqx.Module):
    weight: Float[Array, "m m"]
    activation: Callable


class Everything(ox.Module):
    """A field of each kind."""

    linear: Linear
    layers: list[Linear]
    by_name: dict[str, Linear]
    affine: Affine
    pair: tuple[Float[Array, "n 2"], Float[Array, "n+1"]]
    anything: jax.Array = ox.param()
    mask: Bool[Array, "#n"] = ox.state()
    rng: PRNGKeyArray = ox.state()
    keys: Key[Array, "n"] = ox.state()
    tree: PyTree[Float[Array, "n"]] = ox.state()
    rate: float = ox.static()
    mode: Mode = ox.static()
    order: Literal["C", "F"] = ox.static()
    shape: list[int] = ox.static(converter=tuple)
    config: Config = ox.static()
    activation: Callable[[jax.Array], jax.Array] = ox.static()
    even: Annotated[int, st.sampled_from([2, 4])] = ox.static()
    number: Float[Array, ""] = ox.param(converter=jnp.float32, default=2.0)
    combine: Callable[[Any, Any], Any] = ox.static(default=jnp.hypot)
    flag: bool = ox.static(default=False)
    dtype: Any = ox.static(default=None)


class Own(ox.Module):
    """An `__init__` of its own."""

    kernel: Float[Array, "n n"]
    size: int = ox.static()

    def __init__(self, kernel: Float[Array, "n n"], *, half: int = 1):
        self.kernel = kernel
        self.size = 2 * half


class Base(ox.Module, abc.ABC):
    size: Float[Array, "n"]

    @abc.abstractmethod
    def grow(self): ...


class Small(Base):
    def grow(self):
        return 1


class Wide(Small):
    extra: Float[Array, "n"]


class Lonely(ox.Module, abc.ABC):
    @abc.abstractmethod
    def grow(self): ...


class Wrapped(ox.Module, Generic[N]):
    times: N = ox.static()


class Node(ox.Module):
    value: Float[Array, ""]
    left: Node | None
    rest: list[Node]


def check_fields(module, hints):
    """Beartype and jaxtyping call a function of these annotations, in one scope."""
    namespace = {}
    exec(f"def check({', '.join(hints)}): pass", namespace)
    namespace["check"].__annotations__ = hints
    checked = jaxtyped(namespace["check"], typechecker=beartype)
    checked(**{name: getattr(module, name) for name in hints})


@settings(suppress_health_check=list(HealthCheck))
@given(modules(Everything))
def test_fields_are_what_their_annotations_say(module):
    hints = {
        "linear": Linear,
        "layers": list[Linear],
        "by_name": dict[str, Linear],
        "affine": Affine,
        "pair": tuple[Float[Array, "n 2"], Float[Array, "n+1"]],
        "anything": Float[Array, "..."],
        "rng": PRNGKeyArray,
        "keys": Key[Array, "n"],
        "tree": PyTree[Float[Array, "n"]],
        "mask": Bool[Array, "#n"],
        "number": Float[Array, ""],
        "mode": Mode,
        "order": Literal["C", "F"],
        "config": Config,
        "rate": float,
        "shape": tuple,
    }
    check_fields(module, hints)
    assert module.activation.__module__.startswith("jax") and module.dtype is None
    assert module.even in (2, 4) and module.name is None


@given(modules(Everything))
def test_pytree_and_pickle_round_trip(module):
    leaves, structure = jax.tree.flatten(module)
    assert_same(jax.tree.unflatten(structure, leaves), module)
    nothing = jnp.zeros(0)  # for what JAX and Equinox do not pickle
    module = module.replace(rng=nothing, keys=nothing, affine=nothing)
    assert_same(pickle.loads(pickle.dumps(module)), module)


@pytest.mark.parametrize(
    "wanted",
    [
        lambda m: len(m.layers) == 2 and m.layers[0].kernel.shape != m.layers[1].kernel.shape,
        lambda m: m.linear.bias is not None and m.linear.scale != 1.0,
        lambda m: len(m.by_name) == 2 and len(m.shape) == 1,
        lambda m: m.number == 2 and m.mode is Mode.SLOW and m.order == "F",
        lambda m: m.number != 2 and m.flag,
        lambda m: m.combine is jnp.arctan2,
        lambda m: m.mask.shape == (1,) and m.pair[0].shape == (3, 2),
        lambda m: m.affine.weight.shape == (4, 4),
        lambda m: m.config.mode is Mode.SLOW,
        lambda m: m.anything.ndim == 2 and m.activation is jax.nn.relu,
    ],
)
def test_what_can_be_is_drawn(wanted):
    find(modules(Everything), wanted, settings=settings(max_examples=500, phases=["generate"]))


def test_modules_shrink():
    module = find(modules(Linear), lambda m: bool(m.kernel.sum() > 1))
    assert_same(module, Linear(jnp.array([[2.0]]), None, jnp.array(0, jnp.int32)))
    zero = jnp.float32(0)
    simplest = find(modules(Node), lambda m: m.left is not None)
    assert_same(simplest, Node(zero, Node(zero, None, []), []))


# Kinds of classes -----------------------------------------------------------------------------


def test_abstract_classes_are_those_made_of_them():
    for kind in (Small, Wide):
        assert type(find(modules(Base), lambda m, kind=kind: type(m) is kind)) is kind
    with pytest.raises(TypeError, match=r"modules: Lonely is abstract, and no class is made of it"):
        find(modules(Lonely), lambda module: True)


@settings(max_examples=5)
@given(modules(nn.RecurrentCell), modules(nn.Dense, bias=None))
def test_layers(cell, dense):
    assert isinstance(cell, nn.RecurrentCell)
    assert dense.bias is None and dense.kernel.ndim == 2


@given(modules(nn.Rng), modules(Wrapped), modules(Wrapped[int]))
def test_other_classes(rng, one, other):
    assert rng().dtype == jax.random.key(0).dtype
    assert type(one.times) is type(other.times) is int


@settings(max_examples=10)
@given(st.data())
def test_from_type(data):
    assert type(data.draw(st.from_type(Linear))) is Linear
    assert isinstance(data.draw(st.from_type(Base)), Base)
    pair = data.draw(st.from_type(tuple[Linear, Own]))
    assert tuple(map(type, pair)) == (Linear, Own)

    class Local(ox.Module):
        size: int = ox.static()

    assert type(data.draw(st.builds(lambda x: x, st.from_type(Local)))) is Local


def test_a_registered_strategy_goes_first():
    class Inner(ox.Module):
        size: int = ox.static()

    class Outer(ox.Module):
        inner: Inner

    Outer.__annotations__["inner"] = Inner
    st.register_type_strategy(Inner, st.builds(Inner, st.just(42)))
    assert find(modules(Outer), lambda module: True).inner.size == 42


# Values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hint", "simplest"),
    [
        (int, 0),
        (float, 0.0),
        (bool, False),
        (str, ""),
        (None, None),
        (int | None, None),
        (Mode, Mode.FAST),
        (Literal[3, 4], 3),
        (list[int], []),
        (tuple[int, str], (0, "")),
        (tuple[int, ...], ()),
        (dict[str, int], {}),
        (Config, Config(0)),
        (Callable, jax.nn.identity),
        (Callable[[Any, Any], Any], jnp.hypot),
        (complex, 0j),
        (N, 0),
    ],
)
def test_values(hint, simplest):
    found = find(values(hint), lambda value: True)
    assert found == simplest and type(found) is type(simplest)


@given(values(tuple[Pair, Float[Array, "n"]]))
def test_plain_classes_share_names(pair):
    assert pair[0].left.shape == pair[0].right.shape == pair[1].shape
