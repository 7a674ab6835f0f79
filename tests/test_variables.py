"""Modules are containers of named variables (S2)."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from strategies import assert_same

import oryxstate as ox


class Leaf(ox.Module):
    weight: jax.Array = ox.param()
    count: jax.Array = ox.state()
    size: int = ox.static(default=3)

    def call(self, x):
        self.assign(count=self.count + 1)
        return x * self.weight


class Pair(ox.Module):
    first: Any
    second: Any
    scale: jax.Array = ox.param(default_factory=lambda: jnp.ones(1))

    def call(self, x):
        return self.first(x)


def leaf(**fields):
    return Leaf(jnp.ones(2), jnp.array(0), **fields)


def test_variables_are_params_states_and_children_but_no_statics():
    module = leaf(name="own")
    assert list(module.variables()) == ["weight", "count"]
    assert module.variables()["weight"] is module.weight


def test_a_child_stands_under_its_name_else_under_its_field():
    module = Pair(leaf(name="encoder"), leaf())
    assert list(module.variables()) == ["encoder", "second", "scale"]
    assert module.variables()["encoder"] is module.first


def test_a_container_stands_under_its_field():
    module = Pair([leaf(name="a")], {"k": leaf(name="b")})
    assert list(module.variables()) == ["first", "second", "scale"]


def test_variables_is_a_fresh_dict():
    """W14: it was the live dict."""
    module = leaf()
    module.variables()["weight"] = None
    module.variables().clear()
    assert module.variables()["weight"] is module.weight and module.weight is not None


@pytest.mark.parametrize(
    ("one", "other", "name"),
    [("a", "a", "a"), ("second", None, "second"), (None, "scale", "scale")],
)
def test_duplicate_names_are_an_error(one, other, name):
    module = Pair(leaf(name=one), leaf(name=other))
    with pytest.raises(ValueError, match=rf"Pair has two variables named '{name}'.*`second`|scale"):
        module.variables()
    renamed = module.replace(first=module.first.replace(name="x"), second=leaf(name="y"))
    assert list(renamed.variables()) == ["x", "y", "scale"]


def test_variables_inside_a_call_are_current():
    class Looks(ox.Module):
        inner: Leaf

        def call(self, x):
            self.inner(x)
            return self.inner.variables()["count"], self.variables()["inner"].count

    assert [int(n) for n in Looks(leaf())(jnp.ones(2))] == [1, 1]


def test_name_is_static_and_optional():
    assert leaf().name is None and leaf(name="n").name == "n"
    assert len(jax.tree.leaves(leaf(name="n"))) == 2
    assert jax.tree.structure(leaf(name="n")) != jax.tree.structure(leaf())
    assert leaf(name="n").update(jnp.ones(2)).name == "n"


def test_flatten_gives_one_value_per_field_of_data():
    module = Pair(leaf(), [leaf()])
    xs, static_data = module.flatten()
    assert_same(xs, (module.first, module.second, module.scale))
    assert hash(static_data) == hash(Pair(leaf(), [leaf()]).flatten()[1])


def test_unflatten_takes_other_data_and_keeps_what_is_static():
    xs, static_data = leaf(size=7, name="n").flatten()
    new = Leaf.unflatten(static_data, (jnp.zeros(5), xs[1]))
    assert (new.size, new.name, new.weight.shape) == (7, "n", (5,))
    assert Leaf.unflatten(static_data, (None, "anything")).count == "anything"


def test_unflatten_takes_another_number_of_children():
    xs, static_data = Pair(leaf(), [leaf()]).flatten()
    new = Pair.unflatten(static_data, (leaf(), [leaf(), leaf()], xs[2]))
    assert len(new.second) == 2 and new.second[1].count == 0


def test_replace_is_a_changed_copy():
    module = leaf()
    new = module.replace(count=jnp.array(4), size=9)
    assert (int(new.count), new.size) == (4, 9) and new.weight is module.weight
    assert (int(module.count), module.size) == (0, 3)
    assert new.update(jnp.ones(2)).count == 5


def test_replace_of_a_child_keeps_the_others():
    module = Pair(leaf(), leaf())
    new = module.replace(first=leaf(size=1))
    assert new.first.size == 1 and new.second is module.second


def test_replace_inside_a_call_is_a_value():
    class Replaces(ox.Module):
        count: jax.Array = ox.state()

        def call(self, x):
            self.assign(count=self.count + 1)
            return self.replace(count=self.count + 10)

    out, new = Replaces(jnp.array(0)).call_and_update(1.0)
    assert (int(out.count), int(new.count)) == (11, 1)


def test_a_missing_attribute_is_an_error():
    """W14: it was `None`."""
    with pytest.raises(AttributeError, match="'Leaf' object has no attribute 'wieght'"):
        leaf().wieght  # noqa: B018
    assert not hasattr(leaf(), "wieght")


def test_the_path_keyed_view():
    module = Pair({"k": [leaf(), leaf()]}, leaf(name="named"))
    flat = ox.named_leaves(module)
    assert list(flat) == [
        "first['k'][0].weight",
        "first['k'][0].count",
        "first['k'][1].weight",
        "first['k'][1].count",
        "second.weight",
        "second.count",
        "scale",
    ]
    assert flat["second.weight"] is module.second.weight


def test_the_path_keyed_view_of_any_pytree():
    assert list(ox.named_leaves([leaf()])) == ["[0].weight", "[0].count"]
