"""Generic classes, type aliases, abstract bases, and classes of which nothing can be drawn."""

from __future__ import annotations

import abc
import sys
from collections.abc import Sequence
from typing import (  # noqa: UP035 - what users write
    Any,
    Final,
    Generic,
    List,
    TypeVar,
    TypeVarTuple,
)

import jax.numpy as jnp
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis.errors import FailedHealthCheck
from jaxtyping import Array, Float

import oryxstate as ox
from oryxstate import nn
from oryxstate._annotations import _generics, _hints
from oryxstate.testing import LawError, check_module, modules, values

M = TypeVar("M", bound=ox.Module)
T = TypeVar("T")


class Linear(ox.Module):
    kernel: Float[Array, "n"]

    def call(self, x: Float[Array, "n"]) -> Float[Array, "n"]:
        return self.kernel * x


class Wide(Linear):
    extra: Float[Array, "n"]


class Around(ox.Module, Generic[M]):
    inner: M
    more: list[M]

    def call(self, x: Float[Array, "n"]) -> Float[Array, "n"]:
        return self.inner(x)


class Fixed(Around[Wide]):
    pass


class Twice(Around[Linear], Generic[M]):
    """Uses the variable of its base for something else."""

    other: M


class Holder(ox.Module):
    around: Around[Wide]


class Takes(ox.Module, Generic[T]):
    """An `__init__` of its own, and a call, of the variable."""

    size: Any = ox.static()

    def __init__(self, size: T):
        self.size = size

    def call(self, x: T):
        return x


class Text(Takes[str]):
    pass


def first(strategy):
    return find(strategy, lambda value: True, settings=settings(phases=[Phase.generate]))


@pytest.mark.parametrize(
    ("kind", "inner"),
    [
        (Around[Linear], Linear),
        (Fixed, Wide),
        (Twice[Wide], Linear),
        (Around[Around[Wide]], Around),
    ],
)
def test_type_variables_stand_for_what_a_class_is_given(kind, inner):
    assert type(first(modules(kind)).inner) is inner


def test_type_variables_elsewhere():
    assert type(first(modules(Twice[Wide])).other) is Wide
    assert type(first(modules(Holder)).around.inner) is Wide
    assert type(first(modules(Takes[int])).size) is int
    assert type(first(modules(Text)).size) is str
    assert _hints.of_function(Text.call, Text)["x"] is str
    assert _hints.of_fields(Fixed)["more"] == list[Wide]


class Only(ox.Module, Generic[M]):
    inner: M

    def call(self, x: Float[Array, "n"]) -> Float[Array, "n"]:
        return self.inner(x)


def test_a_generic_class_is_checked_with_its_arguments():
    assert check_module(Only[Linear], laws=["runs"]).checked == ("runs",)


class Base(ox.Module, abc.ABC):
    @abc.abstractmethod
    def grow(self): ...


class Below(Base):
    pass


class Lower(Below):
    pass


class Lowest(Lower):
    inner: Base

    def grow(self): ...


class Leaf(Lower):
    def grow(self): ...


def test_all_classes_below_an_abstract_one():
    seen = set()

    @settings(max_examples=20)
    @given(modules(Base))
    def test(module):
        seen.add(type(module))

    test()
    assert seen == {Lowest, Leaf}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="`type X = ...` came with Python 3.12")
def test_aliases():
    names: dict[str, Any] = {"Float": Float, "Array": Array, "ox": ox, "jnp": jnp}
    exec(_ALIASES, names)
    alias, wrong = names["Alias"], names["Wrong"]
    assert check_module(alias, laws=["annotations_hold"]).checked == ("annotations_hold",)
    with pytest.raises(LawError, match=r'of `Wrong.call` is annotated Float\[Array, "n"\]'):
        check_module(wrong, laws=["annotations_hold"])
    module = find(modules(alias), lambda module: len(module.more) == 1)
    assert module.more[0][0].shape == module.kernel.shape == (1,)
    assert find(values(names["Tree"]), lambda tree: tree == [[]]) == [[]]
    late = _hints.meant(names["Late"])
    assert late == _hints.Unresolved("Late", "NameError: name 'Undefined' is not defined")


_ALIASES = """
type V = Float[Array, "n"]
type Two[X] = tuple[X, X]
type Tree = int | list[Tree]
type Late = Undefined
class Alias(ox.Module):
    kernel: V
    more: list[Two[V]]
    def call(self, x: V | None) -> V:
        return self.kernel
class Wrong(ox.Module):
    kernel: V
    def call(self, x: V) -> V:
        return jnp.concatenate([self.kernel, x])
"""


Ts = TypeVarTuple("Ts")


class Several(ox.Module, Generic[T, *Ts]):
    first: T = ox.static()
    rest: tuple[T, *Ts] = ox.static()


class Words(Several[str, int, int]):
    pass


def test_several_type_arguments_of_one_variable_are_not_followed():
    hints = _hints.of_fields(Words)
    assert hints["first"] is str and hints["rest"] == tuple[str, *Ts]
    with ox.check_annotations():
        assert Words("a", ("b", 1, 2)).rest == ("b", 1, 2)
        with pytest.raises(ox.AnnotationError, match="field `first` of Words is annotated str"):
            Words(1, ("b",))


def test_a_bare_qualifier_says_nothing():
    assert _hints.meant(Final) is Any


def test_type_arguments():
    assert _generics.type_arguments(Twice, (Wide,)) == {Around: {M: Linear}, Twice: {M: Wide}}


# Of these nothing can be drawn ----------------------------------------------------------------


class Endless(ox.Module):
    inner: Endless


class Mutual(ox.Module):
    other: Other | None
    held: Other


class Other(ox.Module):
    mutual: Mutual


class Bare(ox.Module):
    layers: List  # noqa: UP006


class Bracketless(ox.Module):
    kernel: Float


class Refuses(ox.Module):
    kernel: Float[Array, "n"]

    def __post_init__(self):
        if self.kernel.sum() < 1000:
            raise ValueError("the kernel is too small")

    def call(self, x: Float[Array, "n"]):
        return x


class Unhashable(ox.Module):
    names: set[int] = ox.static()

    def call(self, x: Float[Array, "n"]):
        return x


NOTHING = {
    Endless: r"`inner` of Endless is a `Endless` that needs another `Endless` inside it, without",
    Mutual: r"is a `(Mutual|Other)` that needs another",
    Bare: r"`layers` of Bare is annotated `list`, which does not say what is in it\. Give a strat",
    Bracketless: r"`kernel` of Bracketless is annotated `Float` alone; write `Float\[Array, 'n'\]`",
}


@pytest.mark.parametrize("kind", NOTHING)
def test_annotations_that_say_too_little(kind):
    with pytest.raises(TypeError, match=NOTHING[kind]):
        find(modules(kind), lambda module: True)


@pytest.mark.parametrize("hint", [list, tuple, dict, set, frozenset, Sequence])
def test_bare_containers(hint):
    with pytest.raises(TypeError, match=rf"is annotated `{hint.__name__}`, which does not say"):
        find(values(hint), lambda value: True)
    assert find(values(tuple[()]), lambda value: True) == ()


def test_a_class_that_refuses_all_says_why():
    found = r"all of 45 examples were refused, .* ValueError: the kernel is too small\. Give"
    with pytest.raises(FailedHealthCheck, match=found):
        check_module(Refuses, laws=["runs"])
    with pytest.raises(FailedHealthCheck, match="field `names` of Unhashable is static and must"):
        check_module(Unhashable, laws=["runs"])


class Odd(nn.Layer):
    """A layer that refuses its configuration."""

    size: float = ox.static()

    @classmethod
    def initialize(cls, key, spec, size: float):
        return cls(size)

    @classmethod
    def check(cls, size: float):
        raise ValueError("the size is odd")

    def call(self, x):
        return x


def test_a_layer_that_refuses_all_says_why():
    with pytest.raises(FailedHealthCheck, match=r"ValueError: the size is odd\. .*TemplateExample"):
        check_module(Odd, laws=["runs"])


class Two(ox.Module):
    """Fails in two places."""

    def call(self, x: Float[Array, ""]):
        if x > 3:
            raise ValueError("large")
        if x < -3:
            raise KeyError("small")
        return x


def test_one_error_of_several():
    with pytest.raises(LawError, match="`runs` does not hold for Two"):
        check_module(Two, laws=["runs"])
