"""`call`, `__call__` or `call_and_update`: one is written, here or above, the rest follows (S3)."""

import abc
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import pytest

import oryxstate as ox

T = TypeVar("T")
STEPS = [
    pytest.param(ox.call_and_update, id="eager"),
    pytest.param(jax.jit(ox.call_and_update), id="jit"),
]


class State(ox.Module):
    """`y = w * x`, and a count of calls: what every class below computes, times `factor`."""

    w: jax.Array = ox.param(default_factory=lambda: jnp.float32(2))
    n: jax.Array = ox.state(default_factory=lambda: jnp.int32(0))

    factor = 1


class Net(ox.Module):
    inner: Any

    def call(self, x):
        return self.inner[0](x)


class Call(State):
    def call(self, x):
        self.assign(n=self.n + 1)
        return self.w * x


class Dunder(State):
    def __call__(self, x):
        self.assign(n=self.n + 1)
        return self.w * x


class Rule(State):
    def call_and_update(self, x):
        return self.w * x, self.replace(n=self.n + 1)


class CallMixin:
    def call(self, x):
        self.assign(n=self.n + 1)
        return self.w * x


class DunderMixin:
    def __call__(self, x):
        self.assign(n=self.n + 1)
        return self.w * x


class RuleMixin:
    def call_and_update(self, x):
        return self.w * x, self.replace(n=self.n + 1)


def mixed(*bases):
    return type(ox.Module)("Mixed", bases, {"__module__": __name__})


WRITTEN = [
    Call,
    Dunder,
    Rule,
    mixed(CallMixin, State),
    mixed(DunderMixin, State),
    mixed(RuleMixin, State),
    mixed(mixed(CallMixin, State)),
    mixed(CallMixin, Rule),
    mixed(RuleMixin, Call),
    mixed(CallMixin, mixed(RuleMixin, State)),
]


def extended(base):
    """Classes that double the output of `base`, each through another function of `super()`."""

    class ByCall(base):
        factor = 2 * base.factor

        def call(self, x):
            return 2 * super().call(x)

    class ByDunder(base):
        factor = 2 * base.factor

        def __call__(self, x):
            return 2 * super().__call__(x)

    class CallByDunder(base):
        factor = 2 * base.factor

        def call(self, x):
            return 2 * super().__call__(x)

    class ByRule(base):
        factor = 2 * base.factor

        def call_and_update(self, x):
            y, new = super().call_and_update(x)
            return 2 * y, new

    class RuleByParts(base):
        factor = 2 * base.factor

        def call_and_update(self, x):
            return 2 * super().call(x), super().update(x)

    return [ByCall, ByDunder, CallByDunder, ByRule, RuleByParts]


EXTENDED = [sub for base in (Call, Dunder, Rule, WRITTEN[3]) for sub in extended(base)]
TWICE = [sub for base in extended(Call) for sub in extended(base)]


@pytest.mark.parametrize("cls", WRITTEN + EXTENDED + TWICE, ids=lambda cls: cls.__qualname__)
def test_each_call_counts_once(cls):
    """As a root and as a submodule, eagerly and jitted, on each second call as well."""
    for step in (ox.call_and_update, jax.jit(ox.call_and_update)):
        for model, part in ((cls(), lambda m: m), (Net([cls()]), lambda m: m.inner[0])):
            for n in (1, 2):
                y, model = step(model, 3.0)
                assert (float(y), int(part(model).n)) == (6.0 * cls.factor, n)


@pytest.mark.parametrize("cls", WRITTEN + EXTENDED, ids=lambda cls: cls.__qualname__)
def test_all_ways_to_call_agree(cls):
    module = cls()
    y, new = module.call_and_update(3.0)
    assert module(3.0) == module.call(3.0) == ox.call(module, 3.0) == y == 6.0 * cls.factor
    assert module.update(3.0).n == ox.update(module, 3.0).n == new.n == 1
    assert module.n == 0


class Doubles:
    def call(self, x):
        return 2 * super().call(x)


class DoublesAgain:
    def __call__(self, x):
        return 2 * super().__call__(x)


@pytest.mark.parametrize("step", STEPS)
def test_super_of_a_mixin_goes_on_to_the_next_class(step):
    for base in (Call, Dunder, Rule, mixed(CallMixin, State)):
        module = mixed(DoublesAgain, mixed(Doubles, base))()
        for n in (1, 2):
            y, module = step(module, 3.0)
            assert (float(y), int(module.n)) == (24.0, n)
    for n in (1, 2):
        y, new = step(mixed(Doubles, CallMixin, State)(n=jnp.int32(n - 1)), 3.0)
        assert (float(y), int(new.n)) == (12.0, n)


@pytest.mark.parametrize("name", ["call", "__call__", "call_and_update", "update"])
def test_super_that_finds_nothing(name):
    """Neither a recursion nor a call of something else: a mixin has only what it defines."""

    class Lost(State):
        def call(self, x):
            return getattr(super(), name)(x)

    with pytest.raises(NotImplementedError, match=f"no base of Lost defines `{name}`"):
        Lost()(1.0)


@pytest.mark.parametrize("bases", [(ox.Module, CallMixin), (CallMixin, ox.Module)])
def test_a_mixin_on_either_side_of_module(bases):
    class M(*bases):
        w: jax.Array
        n: jax.Array = ox.state()

    y, new = M(jnp.float32(2), jnp.int32(0)).call_and_update(3.0)
    assert (y, new.n) == (6, 1)


def test_one_function_under_two_names():
    class Same(State):
        def call(self, x):
            self.assign(n=self.n + 1)
            return self.w * x

        __call__ = call

    assert Same()(3.0) == 6 and Same().update(3.0).n == 1


@pytest.mark.parametrize(
    "names", [("call", "call_and_update"), ("call", "__call__"), ("__call__", "call_and_update")]
)
def test_two_functions_that_could_disagree_are_refused(names):
    body = {name: lambda self, x: x for name in names}
    for bases, owner in (((State,), "Mixed"), ((type("Mixin", (), body), State), "Mixin")):
        own = body if owner == "Mixed" else {}
        with pytest.raises(TypeError) as caught:
            type(ox.Module)("Mixed", bases, own)
        assert f"{owner} defines both " in str(caught.value)
        assert all(f"`{name}`" in str(caught.value) for name in names)


@pytest.mark.parametrize("bases", [(State,), (Call,), (Rule,), (CallMixin, State)])
def test_an_own_update_is_refused(bases):
    def update(self, x):
        return self

    text = "defines `update`, which Mixed derives from its call.*`ox.update.module, x.`"
    with pytest.raises(TypeError, match=f"Mixed {text}"):
        type(ox.Module)("Mixed", bases, {"update": update})
    mixin = type("Mixin", (), {"update": update})
    for order in ((mixin, *bases), (*bases, mixin)):
        with pytest.raises(TypeError, match=f"Mixin {text}"):
            type(ox.Module)("Mixed", order, {})


@pytest.mark.parametrize("name", ["call", "__call__", "call_and_update"])
def test_an_abstract_function_is_implemented_by_any(name):
    def body(self, *args):
        raise NotImplementedError

    def own(name, function):
        return type("Abstract", (abc.ABC,), {name: abc.abstractmethod(function)})

    in_module = type(ox.Module)("InModule", (State,), {name: abc.abstractmethod(body)})
    for abstract in ((in_module,), (own(name, body), State)):
        with pytest.raises(TypeError, match="abstract"):
            mixed(*abstract)()
        for mixin in (CallMixin, DunderMixin, RuleMixin):
            function = next(n for n in vars(mixin) if n in ("call", "__call__", "call_and_update"))
            cls = type(ox.Module)("Full", abstract, {function: vars(mixin)[function]})
            y, new = jax.jit(ox.call_and_update)(Net([cls()]), 3.0)
            assert (y, new.inner[0].n) == (6, 1)


@pytest.mark.parametrize("step", STEPS)
def test_generic_modules_extend_calls(step):
    class Wrap(ox.Module, Generic[T]):
        inner: T
        n: jax.Array = ox.state(default_factory=lambda: jnp.int32(0))

        def __call__(self, x):
            self.assign(n=self.n + 1)
            return self.inner(x)

    class Doubled(Wrap[Call]):
        def __call__(self, x):
            return 2 * super().__call__(x)

    module = Doubled(Call())
    for n in (1, 2):
        y, module = step(module, 3.0)
        assert (float(y), int(module.n), int(module.inner.n)) == (12.0, n, n)


def test_a_jitted_call():
    class Jitted(State):
        @jax.jit
        def __call__(self, x):
            self.assign(n=self.n + 1)
            return self.w * x

    for n in (1, 2):
        y, new = Net([Jitted(n=jnp.int32(n - 1))]).call_and_update(3.0)
        assert (y, new.inner[0].n) == (6, n)
