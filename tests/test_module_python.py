"""What Python has for every class works for modules: S1, nothing is silently overruled."""

import copy
import functools
import inspect
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import oryxstate as ox

STEPS = [
    pytest.param(ox.call_and_update, id="eager"),
    pytest.param(jax.jit(ox.call_and_update), id="jit"),
]


class Counter(ox.Module):
    n: jax.Array = ox.state(default_factory=lambda: jnp.array(0))

    @functools.cached_property
    def double(self):
        return self.n * 2

    def call(self, x=None):
        before = self.double
        self.assign(n=self.n + 1)
        return before, self.double


class Nested(ox.Module):
    inner: Any

    @functools.cached_property
    def total(self):
        return sum(c.double for c in self.inner)

    def call(self):
        return [self.total, *[c()[1] for c in self.inner], self.total]


# `__getattr__` ------------------------------------------------------------------------------------


class Delegates(ox.Module):
    inner: Any
    n: jax.Array = ox.state(default_factory=lambda: jnp.array(100))

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def call(self):
        self.assign(n=self.n + 5)
        return self.inner()


class Again(Delegates):
    """Has a `__getattr__` that calls the inherited one, and a child of the same kind."""

    def __getattr__(self, name):
        return f"own {name}" if name == "extra" else super().__getattr__(name)


class ToInner:
    def __getattr__(self, name):
        return getattr(self.inner, name)


class Mixed1(ToInner, ox.Module):
    inner: Any
    n: jax.Array = ox.state(default_factory=lambda: jnp.array(100))

    def call(self):
        self.assign(n=self.n + 5)
        return self.inner()


class Mixed2(ox.Module, ToInner):
    inner: Any
    n: jax.Array = ox.state(default_factory=lambda: jnp.array(100))

    def call(self):
        self.assign(n=self.n + 5)
        return self.inner()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("cls", [Delegates, Again, Mixed1, Mixed2])
def test_a_getattr_is_not_asked_for_fields(cls, step):
    module = cls(cls(Counter()))
    for _ in range(2):
        _, module = step(module)
    assert (module.n, module.inner.n, module.inner.inner.n) == (110, 110, 2)
    assert module.double == 4
    assert pickle.loads(pickle.dumps(module)).double == 4
    if cls is Again:
        assert module.extra == "own extra"
    with pytest.raises(AttributeError, match="'Counter' object has no attribute 'missing'"):
        _ = module.missing


def test_a_field_that_is_read_before_it_is_set():
    class Own(ox.Module):
        a: jax.Array = ox.state()

        def __init__(self):
            self.a = self.a + 1

    with pytest.raises(AttributeError, match="'Own' object has no attribute 'a'"):
        Own()


# `functools.cached_property` ----------------------------------------------------------------------


class Mixin:
    @functools.cached_property
    def double(self):
        return self.n * 2


class Mixed(Mixin, ox.Module):
    n: jax.Array = ox.state(default_factory=lambda: jnp.array(0))

    def call(self):
        before = self.double
        self.assign(n=self.n + 1)
        return before, self.double


class Super(Mixed):
    @functools.cached_property
    def double(self):
        return super().double + 0


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("cls", [Counter, Mixed, Super])
def test_a_cached_property_is_never_stale(cls, step):
    module = cls()
    for n in range(3):
        assert module.double == 2 * n
        (before, after), module = step(module)
        assert (before, after) == (2 * n, 2 * n + 2)
    assert module.replace(n=jnp.array(7)).double == 14
    assert jax.tree.map(lambda n: n + 1, module).double == 8


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("container", [list, tuple])
def test_a_cached_property_of_children_is_never_stale(container, step):
    module = Nested(container([Counter(), Super()]))
    assert module.total == 0
    for n in range(2):
        out, module = step(module)
        assert out == [4 * n, 2 * n + 2, 2 * n + 2, 4 * n + 4]
        assert module.total == 4 * n + 4


def test_a_cached_property_is_computed_once():
    computed = []

    class Once(ox.Module):
        w: jax.Array

        @functools.cached_property
        def table(self):
            computed.append(1)
            return self.w + 1

    module = Once(jnp.ones(2))
    assert module.table is module.table and len(computed) == 1
    assert isinstance(Once.table, functools.cached_property)
    copied = copy.copy(module)
    assert len(computed) == 1 and copied.table is copied.table and len(computed) == 2


def test_a_cached_property_keeps_no_tracer():
    module = Counter()
    jax.jit(lambda: module.double)()
    jax.grad(lambda x: x * module.double.astype(float))(1.0)
    assert module.double + 1 == 1


# `inspect.signature` ------------------------------------------------------------------------------


def test_the_signature_of_a_class_is_that_of_its_constructor():
    class Linear(ox.Module):
        w: jax.Array
        size: int = ox.static(default=3)

    class Own(Linear):
        def __init__(self, first, *rest, last=None):
            super().__init__(jnp.ones(first))

    assert list(inspect.signature(Linear).parameters) == ["w", "size", "name"]
    assert inspect.signature(Linear).parameters["size"].default == 3
    assert str(inspect.signature(Own)) == "(first, *rest, last=None)"
    assert inspect.signature(Linear).bind(1, size=2).arguments == {"w": 1, "size": 2}
    assert str(inspect.signature(Counter().call)) == "(x=None)"


# Class keywords -----------------------------------------------------------------------------------


def test_kw_only_fields():
    class Options(ox.Module, kw_only=True):
        a: jax.Array = ox.param(default=None)
        b: int = ox.static()

    class More(Options):
        c: jax.Array

    assert str(inspect.signature(More)).startswith("(c: ")
    module = More(jnp.ones(1), b=2)
    assert module.b == 2 and module.a is None
    with pytest.raises(TypeError, match="positional"):
        Options(jnp.ones(1), 2)


@pytest.mark.parametrize("option", ["frozen", "eq", "order", "init", "repr", "slots"])
def test_other_options_of_dataclasses_are_refused(option):
    with pytest.raises(TypeError, match=rf"class Sub got the option `{option}=True`.*`kw_only`"):
        type(ox.Module)("Sub", (ox.Module,), {}, **{option: True})


def test_class_keywords_reach_the_base_that_takes_them():
    class Tagged(ox.Module):
        def __init_subclass__(cls, *, tag, order="any", **kwargs):
            super().__init_subclass__(**kwargs)
            cls.tag, cls.order = tag, order

    class Mixin:
        def __init_subclass__(cls, *, extra=None, **kwargs):
            super().__init_subclass__(**kwargs)
            cls.extra = extra

    class One(Tagged, tag="one", order="last", kw_only=True):
        w: jax.Array

    class Two(One, Mixin, tag="two", extra=3):
        pass

    assert (One.tag, One.order, Two.tag, Two.extra) == ("one", "last", "two", 3)
    assert One(w=jnp.ones(1)).tag == "one"
    with pytest.raises(TypeError, match="takes no keyword arguments"):
        type(ox.Module)("Sub", (ox.Module,), {}, unknown=1)
