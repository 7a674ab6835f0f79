"""Are the modules drawn those that a class allows, and of every kind that it allows?"""

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
from hypothesis.errors import FailedHealthCheck
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray, PyTree, jaxtyped
from strategies import assert_same

import oryxstate as ox
from oryxstate import nn
from oryxstate.testing import Sizes, arrays, modules, values

T = TypeVar("T")
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


class Initialized(ox.Module):
    """With a parameter that is no field."""

    first: dataclasses.InitVar[int]
    kernel: Float[Array, "n"] = ox.param(init=False)

    def __post_init__(self, first):
        if not 2 <= first <= 3:
            raise ValueError(f"first must be 2 or 3, got {first}")
        self.kernel = jnp.full(first, 1.0)


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


class Even(ox.Module):
    kernel: Float[Array, "n"]

    def __post_init__(self):
        if self.kernel.shape[0] % 2:
            raise ValueError("the length must be even")


class Never(ox.Module):
    kernel: Float[Array, "n"]
    inner: Even | None = None

    def __post_init__(self):
        if self.kernel.shape[0] < 9:
            raise ValueError("the length must be 9 or more")


class Untyped(ox.Module):
    kernel: Any


class Missing(ox.Module):
    kernel: Flaot[Array, "n"]


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


# Constructors ---------------------------------------------------------------------------------


@given(modules(Own, half=st.integers(1, 3)))
def test_an_init_of_its_own(module):
    assert module.kernel.shape[0] == module.kernel.shape[1] and module.size in (2, 4, 6)


@given(modules(Initialized))
def test_what_validation_refuses_is_no_example(module):
    assert module.kernel.shape in ((2,), (3,))


@given(modules(Even))
def test_lengths_that_validation_refuses(module):
    assert module.kernel.shape[0] in (2, 4)


def test_a_class_that_refuses_all_says_so():
    want = (
        r"no Never could be drawn: all of \d+ examples were refused, the last one with ValueError: "
        r"the length must be 9 or more Give strategies for .*: `modules\(Never, field=strategy\)`"
    )
    with pytest.raises(FailedHealthCheck, match=want):
        find(modules(Never), lambda module: True)

    @given(modules(Never))
    def test(module):
        raise AssertionError("never")

    with pytest.raises(FailedHealthCheck, match=want):
        test()
    module = find(modules(Never, kernel=arrays(Float[Array, "9"])), lambda module: True)
    assert module.kernel.shape == (9,)
    module = find(modules(Never, sizes={"n": 10}, inner=None), lambda module: True)
    assert module.kernel.shape == (10,)


def test_a_number_for_an_array_says_what_is_wrong():
    class Number(ox.Module):
        rate: float = ox.param()

    with pytest.raises(FailedHealthCheck, match=r"with TypeError: field `rate` of Number holds"):
        find(modules(Number), lambda module: True)


# Which names mean the same ----------------------------------------------------------------------


class Twice(ox.Module):
    first: Linear
    second: Linear
    scale: Float[Array, "in"]


def test_each_module_has_names_of_its_own():
    find(modules(Twice), lambda m: m.first.kernel.shape != m.second.kernel.shape)
    find(modules(Twice), lambda m: m.first.kernel.shape[0] != m.scale.shape[0])


@given(modules(Twice, sizes={"in": 3}))
def test_names_that_are_given_hold_inside(module):
    assert {module.first.kernel.shape[0], module.second.kernel.shape[0]} == {3}
    assert module.scale.shape == (3,)


def test_modules_share_sizes():
    sizes = Sizes()

    @given(modules(Linear, sizes=sizes), arrays(Float[Array, "b in"], sizes=sizes))
    def check(linear, x):
        assert (x @ linear.kernel).shape[1] == linear.kernel.shape[1]

    check()


@given(modules(Linear, kernel=arrays(Float[Array, "2 5"])))
def test_other_fields_fit_those_that_are_given(module):
    assert module.kernel.shape == (2, 5) and (module.bias is None or module.bias.shape == (5,))


@given(modules(Linear, count=jnp.array(7, jnp.int32), scale=3.0, name="encoder"))
def test_values_can_be_given(module):
    assert (int(module.count), module.scale, module.name) == (7, 3.0, "encoder")


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


# What cannot be drawn -------------------------------------------------------------------------


def test_a_field_without_meaning_says_so():
    with pytest.raises(TypeError) as caught:
        find(modules(Untyped), lambda module: True)
    assert str(caught.value).splitlines()[0] == (
        "`kernel` of Untyped has no annotation that says what it is. Give a strategy for it: "
        "`modules(Untyped, kernel=strategy)`."
    )
    assert find(modules(Untyped, kernel=arrays(jax.Array)), lambda m: True).kernel.shape == ()
    want = r"`kernel` of Missing is annotated `Flaot\[Array, 'n'\]`, which has no meaning here"
    with pytest.raises(TypeError, match=want):
        find(modules(Missing), lambda module: True)
    with pytest.raises(TypeError, match=r"is a function of 0 arguments, of which none are known"):
        find(values(Callable[[], int]), lambda value: True)
    with pytest.raises(TypeError, match=r"is annotated with the type variable `~T`"):
        find(values(T), lambda value: True)


def test_what_is_no_class_of_modules_is_refused():
    with pytest.raises(TypeError, match=r"modules: give a class of modules, got <class 'int'>"):
        modules(int)
    with pytest.raises(TypeError, match=r"modules: Linear has no field `kernle`. Did you mean `k"):
        modules(Linear, kernle=1)
    with pytest.raises(TypeError, match=r"modules: Dense has no field `size`"):
        modules(nn.Dense, size=1)


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
    ids=str,
)
def test_values(hint, simplest):
    found = find(values(hint), lambda value: True)
    assert found == simplest and type(found) is type(simplest)


@given(values(tuple[Pair, Float[Array, "n"]]))
def test_plain_classes_share_names(pair):
    assert pair[0].left.shape == pair[0].right.shape == pair[1].shape
