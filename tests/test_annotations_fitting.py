"""Modules and calls that fit while annotations are checked."""

from __future__ import annotations

import copy
import pickle
import typing
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import beartype
import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from annotated import Net, Scale, net, raised
from jaxtyping import Array, Float, Key, PyTree, jaxtyped

import oryxstate as ox
from oryxstate import nn

if TYPE_CHECKING:
    from nowhere import Unknown

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def checked():
    with ox.check_annotations():
        yield


class Quiet(ox.Module):
    """Has state that its call does not read."""

    seen: Float[Array, " c"] = ox.state()
    parts: PyTree[Array] = None

    def call(self, x: Float[Array, " c"]) -> Float[Array, " c"]:
        return x


def test_programs_are_the_same():
    """State, whose reading is an effect, is not read to be checked."""

    class Loop(ox.Module):
        quiet: Quiet

        def call(self, xs):
            return jax.lax.scan(lambda h, x: (self.quiet(h + x), None), xs[0], xs)[0]

    def program():
        return str(jax.make_jaxpr(lambda m, x: ox.call(m, x))(model, jnp.ones((3, 2))))

    model = Loop(Quiet(jnp.ones(2), [Quiet(jnp.ones(2))]))
    checked = program()
    with ox.check_annotations(False):
        assert program() == checked


@pytest.mark.parametrize("leaf", [None, object(), 0, "text", jax.ShapeDtypeStruct((7,), int)])
def test_modules_are_put_together_of_anything(leaf):
    model = net(2, 3)
    assert type(jax.tree.map(lambda _: leaf, model).layers[0]) is Scale
    assert jax.tree.structure(model).unflatten([leaf] * 4).layers[1].scale is leaf
    data, static = model.layers[0].flatten()
    assert Scale.unflatten(static, (leaf, *data[1:])).scale is leaf
    marked = eqx.tree_at(lambda m: m.layers[0].scale, model, leaf)
    assert copy.copy(marked).layers[0].scale is leaf


def test_modules_are_taken_apart_and_copied():
    model = eqx.tree_at(lambda m: m.layers[0].scale, net(2, 3), jnp.ones((4, 4)))
    assert eqx.filter(model, lambda x: False).layers[0].scale is None
    assert ox.partition(model)[1].layers[0].scale is None
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.layers[0].scale.shape == (4, 4)


def test_shapes_stand_for_arrays():
    spec = jax.ShapeDtypeStruct((2,), jnp.float32)
    assert Scale(spec, spec).scale is spec
    assert "`shift`" in raised(lambda: Scale(spec, jax.ShapeDtypeStruct((3,), jnp.float32)))
    model = jax.eval_shape(lambda: net(2, 2))
    assert model.layers[0].replace(scale=spec, name="it").name == "it"
    x = jax.ShapeDtypeStruct((3, 2), jnp.float32)
    assert jax.eval_shape(ox.call, model, x).shape == (2,)

    class Plain(ox.Module):
        x: jax.Array
        y: typing.Annotated[Float[Array, " n"], "a note"]

    assert Plain(spec, spec).x is spec


def test_ensembles():
    """Built, called and changed under `vmap`; each member is as annotated."""
    many = jax.vmap(lambda x: Net([Scale(x)]))(jnp.ones((5, 2)))
    x = jnp.ones((3, 2))
    y, many = jax.vmap(ox.call_and_update, (0, None))(many, x)
    assert y.shape == (5, 2) and many.layers[0].count.tolist() == [1] * 5
    assert many.layers[0].replace(power=2.0, name="members").scale.shape == (5, 2)
    assert jax.vmap(net(2))(jnp.ones((4, 3, 2))).shape == (4, 2)


def test_transformations_inside_a_call():
    class Deep(ox.Module):
        part: Scale

        def call(self, xs: Float[Array, "t b c"]) -> Float[Array, "b c"]:
            x = jax.lax.scan(lambda h, x: (jax.checkpoint(self.part)(h + x), None), xs[0], xs)[0]
            x = jax.lax.cond(x.sum() > 0, self.part, lambda x: x, x)
            x = jax.vmap(lambda row: self.part.replace(scale=row)(row[None]))(x)[:, 0]
            return x + jax.grad(lambda x: jax.jit(self.part)(x).sum())(x)

    y, deep = jax.jit(ox.call_and_update)(Deep(Scale(jnp.ones(2))), jnp.ones((3, 4, 2)))
    assert y.shape == (4, 2) and deep.part.count == 6


def test_live_modules_are_arguments():
    class Apply(ox.Module):
        part: Scale

        def call(self, x: Float[Array, "b c"]) -> Float[Array, "b c"]:
            return jax.jit(self.of)(self.part, x)

        def of(self, part: Scale, x: PyTree[Float[Array, "..."]]) -> Array:
            return Inner()(part, x)

    class Inner(ox.Module):
        def call(self, part: Scale, x: PyTree[Float[Array, "..."]]) -> Array:
            return part(x)

    assert Apply(Scale(jnp.ones(2)))(jnp.ones((1, 2))).shape == (1, 2)


def test_traced_numbers_are_the_python_numbers_they_were():
    scale = Scale(jnp.ones(2))
    step = jax.jit(lambda x, n: scale(x, n))
    assert step(jnp.ones((1, 2)), 3).sum() == 6
    one = jnp.ones((1, 2))
    assert jax.lax.fori_loop(0, 3, lambda i, x: scale(x) * jnp.float32(i), one).sum() == 0
    assert "`times`" in raised(lambda: step(one, 1.5))
    assert "`times`" in raised(lambda: step(one, jnp.ones(2, int)))
    assert "`times`" in raised(lambda: step(one, KEY))


T = TypeVar("T")


class Interface(typing.Protocol):  # which cannot be checked at run time
    def nothing(self) -> None: ...


class Getter(typing.Protocol[T]):
    def get(self) -> T: ...


class Pair(typing.NamedTuple, Generic[T]):
    first: T
    number: int


class Odd(ox.Module, Generic[T]):
    later: Later | None  # never defined
    only_static: Unknown = ox.static(default=1)
    protocol: Interface = ox.static(default=1)
    of_protocol: Getter[int] = ox.static(default=1)
    generic: T = ox.static(default=1)
    pair: Pair[str] = ox.static(default=Pair("first", 2))
    types: type[ox.Module] = ox.static(default=Scale)
    nonsense: "1 +" = ox.static(default=1)
    number: 5 = ox.static(default=1)
    one_of: Literal["a", "b"] = ox.static(default="a")
    function: Callable[[int], Unknown] = ox.static(default=len)
    old_function: typing.Callable[[int], str] = ox.static(default=len)
    me: Odd[Any] | None = None

    def call(
        self,
        x: Float[Array, "m+1"],
        y: Unknown,
        z: list[Unknown],
        n: Sequence[T],
        k: Key[Array, ""],
    ) -> Later:
        return x


def test_annotations_that_cannot_be_checked():
    """Of them nothing is said; the others are checked."""
    odd = Odd(None, me=Odd(jnp.ones(1)))
    assert odd(jnp.ones(3), 1, 2, [3], KEY).shape == (3,)
    assert "`one_of`" in raised(lambda: Odd(None, one_of="c"))
    assert "`old_function`" in raised(lambda: Odd(None, old_function=1))
    assert "`me` of Odd is annotated" in raised(lambda: Odd(None, me=Scale(jnp.ones(1))))
    assert "`n` of `Odd.call`" in raised(lambda: odd(jnp.ones(3), 1, 2, 3, KEY))
    assert "`k` of `Odd.call`" in raised(lambda: odd(jnp.ones(3), 1, 2, [], jnp.ones(2)))


def test_classes_that_are_in_no_file():
    code = """
from __future__ import annotations
import jax as the_jax, oryxstate as ox
class Nowhere(ox.Module):
    x: the_jax.Array
    def call(self): return self.x
"""
    space = {"__name__": "nowhere"}
    exec(code, space)
    spec = jax.ShapeDtypeStruct((2,), jnp.float32)
    assert space["Nowhere"](spec).x is spec
    assert "`x` of Nowhere" in raised(lambda: space["Nowhere"]([jnp.ones(2)]))


def test_what_python_says_of_a_wrong_call_is_what_is_said():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        Scale(jnp.ones(1))()
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'scale'"):
        Scale()


def test_a_module_that_checks_itself():
    class Both(ox.Module):
        w: Float[Array, " n"]

        @jaxtyped(typechecker=beartype.beartype)
        def call(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
            return self.w * x

    assert Both(jnp.ones(2))(jnp.ones(2)).shape == (2,)
    assert "`x` of `Both.call`" in raised(lambda: Both(jnp.ones(2))(jnp.ones(3)))


def test_calls_without_annotations_and_calls_that_are_no_functions():
    class Wrapped(ox.Module):
        w: Array
        call = jax.jit(lambda self, x: self.w * x)

    assert Wrapped(jnp.ones(2))(jnp.ones(2)).shape == (2,)
    assert nn.Lambda.of(jax.nn.relu).init(KEY, jnp.ones(2))(jnp.ones(2)).shape == (2,)
    function = ox.init(lambda x: ox.variable(x, name="x"))(KEY, 1.0)
    assert float(function(2.0)) == 1.0


def test_rules_for_batches():
    norm = nn.BatchNorm.of().init(KEY, jnp.ones(2))
    step = jax.vmap(lambda x: norm.call_and_update(x, training=True), out_axes=(0, None))
    assert step(jnp.ones((4, 2)))[0].shape == (4, 2)
