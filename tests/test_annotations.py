"""Faults that the check of annotations finds, and the text of its errors."""

from __future__ import annotations

import typing
from typing import Self

import beartype
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from annotated import Net, Scale, net, raised, text
from jaxtyping import Array, Float, Int, Num, PyTree, jaxtyped

import oryxstate as ox

VECTOR = 'Float[Array, "c"]'


@pytest.fixture(autouse=True)
def checked():
    with ox.check_annotations():
        yield


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("scale", jnp.ones((2, 3)), (VECTOR, "float32[2,3]")),
        ("scale", jnp.ones(2, int), (VECTOR, "int32[2]")),
        ("scale", np.ones(2, np.float32), (VECTOR, "NumPy's float32[2]")),
        ("scale", None, (VECTOR, "None")),
        ("scale", [jnp.ones(2)], (VECTOR, "[f32[2]]")),
        ("shift", jnp.ones(3), (f"{VECTOR} | None", "float32[3]", "c=2")),
        ("count", jnp.ones(()), ('Int[Array, ""]', "float32[]", "c=2")),
        ("power", "big", ("float", "'big' (str)", "c=2")),
    ],
)
def test_fields_at_construction(field, value, error):
    fields = {"scale": jnp.ones(2), field: value}
    assert raised(lambda: Scale(**fields)) == text(f"field `{field}` of Scale", *error)


def test_in_replace_dimensions_are_those_of_the_fields_that_stay():
    scale = Scale(jnp.ones(2), jnp.ones(2))
    found = raised(lambda: scale.replace(scale=jnp.ones(3)))
    assert found == text("field `scale` of Scale", VECTOR, "float32[3]", "c=2")
    assert scale.replace(scale=jnp.ones(3), shift=jnp.ones(3)).shift.shape == (3,)


def test_fields_of_a_parent_class_and_of_a_class_with_its_own_init():
    class Wide(Scale):
        width: Int[Array, " c"] = ox.param()

        def __init__(self, c, width):
            self.scale, self.width = jnp.ones(c), width

    assert Wide(3, jnp.arange(3)).count == 0
    found = raised(lambda: Wide(3, jnp.arange(2)))
    assert found == text("field `width` of Wide", 'Int[Array, "c"]', "int32[2]", "c=3")


def test_names_of_the_class_body():
    class Named(ox.Module):
        Vector = Float[Array, " n"]
        x: Vector

        def call(self, y: Vector) -> Vector:
            return self.x + y

    assert "`x` of Named" in raised(lambda: Named(jnp.ones((2, 2))))
    assert "`y` of `Named.call`" in raised(lambda: Named(jnp.ones(2))(jnp.ones(3)))


def test_a_child_of_another_class():
    found = raised(lambda: Net([Scale(jnp.ones(2)), net(2)]))
    assert found == text("field `layers[1]` of Net", "Scale", "a Net")


def test_arguments_and_where_the_module_stands():
    found = raised(lambda: jax.jit(ox.call_and_update)(net(2, 3), jnp.ones((4, 2))))
    what = "argument `x` of `Scale.call` at 'layers[1]'"
    assert found == text(what, 'Float[Array, "b c"]', "float32[4,2]", "c=3")
    found = raised(lambda: Scale(jnp.ones(2))(jnp.ones((4, 2)), times=0.5))
    assert found == text("argument `times` of `Scale.call`", "int", "0.5 (float)", "c=2, b=4")


def test_a_module_made_or_changed_inside_a_call():
    class Maker(ox.Module):
        part: Scale

        def call(self, x: Float[Array, "n n"]) -> Float[Array, "n n"]:
            return self.part.replace(scale=x)(x)

    found = raised(lambda: Maker(Scale(jnp.ones(2)))(jnp.ones((2, 2))))
    assert found == text("field `scale` of Scale at 'part'", VECTOR, "float32[2,2]")


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit, jax.checkpoint, jax.grad])
def test_the_output(transform):
    class Wrong(ox.Module):
        w: Float[Array, "i o"]

        def call(self, x: Float[Array, " i"]) -> Float[Array, " o"]:
            return (self.w.T @ x)[:-1]

    wrong = Wrong(jnp.ones((2, 3)))
    found = raised(lambda: transform(lambda x: wrong(x).sum())(jnp.ones(2)))
    output = 'Float[Array, "o"]', "float32[2]", "i=2, o=3"
    assert found == text("the output of `Wrong.call`", *output)


class Rule(ox.Module):
    """Written as `call_and_update`, one part of whose annotation cannot be checked."""

    total: Float[Array, " n"] = ox.state()
    wrong: bool = ox.static(default=False)

    def call_and_update(self, x: Float[Array, " n"]) -> tuple[Float[Array, " n"], Self]:
        return x[1:] if self.wrong else x, self.replace(total=self.total + x)


class Outer(ox.Module):
    rule: Rule

    def call(self, x):
        return self.rule(x)


@pytest.mark.parametrize(("wrap", "where"), [(lambda m: m, ""), (Outer, " at 'rule'")])
def test_a_rule_alone_and_inside_a_call(wrap, where):
    good, name, hint = wrap(Rule(jnp.ones(2))), "`Rule.call_and_update`", 'Float[Array, "n"]'
    y, new = ox.call_and_update(good, jnp.ones(2))
    assert (y == 1).all() and jax.tree.leaves(new)[0][0] == 2
    found = raised(lambda: ox.call_and_update(good, jnp.ones(3)))
    assert found == text(f"argument `x` of {name}{where}", hint, "float32[3]", "n=2")
    found = raised(lambda: wrap(Rule(jnp.ones(2), wrong=True))(jnp.ones(2)))
    assert found == text(f"the output `[0]` of {name}{where}", hint, "float32[1]", "n=2")


class Many(ox.Module):
    arrays: dict[str, list[Float[Array, " c"]]] = ox.param()
    names: frozenset[str] = ox.static(default=frozenset())
    pair: tuple[int, str] = ox.static(default=(1, ""))
    several: tuple[int, ...] = ox.static(default=())
    old: typing.List[Float[Array, " c"]] = ox.param(default_factory=list)  # noqa: UP006

    def call(self, *xs: Float[Array, " c"], **named: Float[Array, " c"]):
        return xs


def test_every_element_of_a_container():
    """Beartype alone looks at one, drawn at random."""
    some, more = [jnp.ones(2)] * 9, [*[jnp.ones(2)] * 9, jnp.ones(3)]
    found = raised(lambda: Many({"a": some, "b": more}))
    assert found == text("field `arrays['b'][9]` of Many", VECTOR, "float32[3]", "c=2")
    assert "`arrays[1]` of Many is annotated str, but got 1" in raised(lambda: Many({1: some}))
    assert "of Many is annotated str" in raised(lambda: Many({}, frozenset({"a", "b", "c", 1})))
    assert "`old[9]` of" in raised(lambda: Many({"a": some}, old=more))
    assert "`several[2]` of Many is annotated int" in raised(lambda: Many({}, several=(1, 2, "")))
    assert "`pair[1]` of Many is annotated str" in raised(lambda: Many({}, pair=(1, 1)))
    assert "tuple[int, str], but got (1, '', 1)" in raised(lambda: Many({}, pair=(1, "", 1)))
    many = Many({"a": some})
    assert many(jnp.ones(2), y=jnp.ones(2))[0].shape == (2,)
    assert "argument `xs[1]` of" in raised(lambda: many(jnp.ones(2), jnp.ones(3)))
    assert "argument `y` of" in raised(lambda: many(jnp.ones(2), y=jnp.ones(3)))


def test_sizes_are_those_of_what_fits():
    """Not of an array that does not fit, nor of the first of two annotations that fits in part."""

    class Either(ox.Module):
        def call(
            self, x: Float[Array, "a 3"] | Float[Array, "b a"], y: Float[Array, " a"]
        ) -> Float[Array, "c a 3"]:
            return y

    assert "float32[2], with b=2, a=4." in raised(lambda: Either()(jnp.ones((2, 4)), jnp.ones(2)))
    assert "float32[4], with b=2, a=4." in raised(lambda: Either()(jnp.ones((2, 4)), jnp.ones(4)))


def test_expressions_of_dimensions_and_of_arguments():
    class Pad(ox.Module):
        width: int = ox.static()

        def call(
            self, x: Float[Array, " n"], more: int = 1
        ) -> tuple[Float[Array, "n+1"], Float[Array, " {more}+{self.width}"]]:
            return jnp.append(x, 0.0), jnp.zeros(more + 2)

    assert Pad(2)(jnp.ones(3))[0].shape == (4,)
    assert Pad(2)(jnp.ones(3), more=4)[1].shape == (6,)
    hint = 'Float[Array, "{more}+{self.width}"]'
    assert f"`[1]` of `Pad.call` is annotated {hint}, but" in raised(lambda: Pad(3)(jnp.ones(3)))


def test_the_scope_is_that_of_the_call():
    """The author's own `isinstance` is in it; a checked function around it is not."""

    class Manual(ox.Module):
        def call(self, x: Float[Array, " n"]) -> bool:
            return isinstance(jnp.ones(3), Float[Array, " n"])

    @jaxtyped(typechecker=beartype.beartype)
    def around(x: Float[Array, " n"], manual: Manual) -> Float[Array, " n"]:
        assert manual(jnp.ones(3)) and not manual(jnp.ones(2))
        return x

    assert around(jnp.ones(5), Manual()).shape == (5,)


def test_trees_and_equinox_children():
    class Holder(ox.Module):
        tree: PyTree[Float[Array, "..."], "T"] = ox.param()
        mlp: eqx.nn.MLP
        text: typing.Annotated[str, "of any length"] = ox.static(default="")

        def call(self, x: PyTree[Float[Array, "..."], "T"]) -> Float[Array, " out"]:
            return self.mlp(x["a"])

    mlp = eqx.nn.MLP(2, 3, 4, 1, key=jax.random.key(0))
    holder = Holder({"a": jnp.ones(2)}, mlp).replace(name="holder")
    assert holder({"a": jnp.ones(2)}).shape == (3,)
    assert "T=PyTreeDef({'a': *})" in raised(lambda: holder({"b": jnp.ones(2)}))
    assert "`tree`" in raised(lambda: Holder({"a": jnp.ones(2, int)}, mlp))
    assert "`mlp`" in raised(lambda: Holder({"a": jnp.ones(2)}, eqx.nn.Identity()))
    assert "`text`" in raised(lambda: Holder({}, mlp, text=1))


def test_rules_for_batches():
    class Turned(ox.Module):
        mean: Float[Array, " c"] = ox.state()

        def call(self, x: Float[Array, " c"]) -> Float[Array, " c"]:
            return x

        def call_batched(self, xs: Num[Array, "b c"]) -> Num[Array, "c b"]:
            return xs

    turned = Turned(jnp.ones(1))
    assert turned(jnp.ones(1)).shape == (1,)
    assert "argument `x` of `Turned.call` is" in raised(lambda: turned(jnp.ones(1, int)))
    found = raised(lambda: jax.vmap(turned)(jnp.ones((3, 1))))
    output = 'Num[Array, "c b"]', "float32[3,1]", "c=1, b=3"
    assert found == text("the output of `Turned.call_batched`", *output)
