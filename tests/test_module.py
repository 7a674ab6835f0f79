"""Modules are frozen dataclasses and pytrees (S1)."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import pytest

import oryxstate as ox

T = TypeVar("T")


def double(x):
    return 2 * x


class Dense(ox.Module):
    kernel: jax.Array = ox.param()
    bias: jax.Array | None = ox.param(default=None)
    count: jax.Array = ox.state(default_factory=lambda: jnp.zeros((), int))
    rate: float = ox.static(default=0.5)
    activation: Callable = ox.static(default=double)

    def call(self, x):
        self.assign(count=self.count + 1)
        return self.activation(x @ self.kernel)


class Box(ox.Module):
    inner: Any


def dense(**fields):
    return Dense(jnp.ones((2, 3)), **fields)


def test_fields_take_positions_keywords_and_defaults():
    module = Dense(jnp.ones((2, 3)), rate=0.1, name="first")
    assert (module.rate, module.name, module.bias) == (0.1, "first", None)
    assert dataclasses.is_dataclass(module)
    assert [f.name for f in dataclasses.fields(module)][:3] == ["name", "kernel", "bias"]
    with pytest.raises(TypeError, match="kernel"):
        Dense()


def test_name_is_keyword_only():
    with pytest.raises(TypeError, match="positional"):
        Box(jnp.ones(2), "name")


def test_default_factories_and_kw_only_and_init_options():
    class Options(ox.Module):
        made: jax.Array = ox.state(default_factory=lambda: jnp.zeros(2))
        last: jax.Array = ox.param(kw_only=True)
        fixed: int = ox.static(init=False, default=3)
        hidden: int = ox.static(repr=False, default=7)
        noted: int = ox.static(default=1, metadata={"unit": "m"})

    module = Options(last=jnp.ones(1))
    assert module.made.shape == (2,) and module.fixed == 3
    assert "hidden" not in repr(module)
    assert Options.__dataclass_fields__["noted"].metadata["unit"] == "m"
    with pytest.raises(TypeError, match="fixed"):
        Options(last=jnp.ones(1), fixed=4)


@pytest.mark.parametrize("specifier", [ox.param, ox.state, ox.static])
def test_an_unknown_option_of_a_specifier_is_an_error(specifier):
    with pytest.raises(TypeError, match=f"{specifier.__name__}.*nonsense"):
        specifier(nonsense=1)


def test_converters_are_applied_to_arguments_defaults_assignments_and_replacements():
    class Converted(ox.Module):
        scale: jax.Array = ox.param(converter=jnp.asarray, default=1.0)
        sizes: tuple = ox.static(converter=tuple, default=())

    class Own(ox.Module):
        scale: jax.Array = ox.param(converter=jnp.asarray, default=2.0)

        def __init__(self, scale=None):
            if scale is not None:
                self.scale = scale

    assert isinstance(Converted().scale, jax.Array)
    module = Converted(3, sizes=[1, 2])
    assert isinstance(module.scale, jax.Array) and module.sizes == (1, 2)
    assert module.replace(sizes=[3]).sizes == (3,)
    assert isinstance(Own().scale, jax.Array) and isinstance(Own(5).scale, jax.Array)


def test_a_field_without_specifier_is_a_child_or_a_param():
    module = Box({"a": dense(), "b": (jnp.ones(1), None)})
    params, rest = ox.partition(module)
    assert params.inner["b"][0] is module.inner["b"][0]
    assert params.inner["a"].count is None and rest.inner["a"].count is not None


def test_own_init_assigns_and_is_frozen_afterwards():
    class Own(ox.Module):
        weight: jax.Array
        size: int = ox.static()

        def __init__(self, size):
            self.size = size
            self.weight = jnp.zeros(self.size)
            self.weight = self.weight + 1  # again, before it is frozen

    module = Own(3)
    assert module.weight.tolist() == [1, 1, 1] and module.name is None
    with pytest.raises(dataclasses.FrozenInstanceError, match=r"`size` of Own.*replace\(size="):
        module.size = 4


def test_post_init_runs_before_the_module_is_frozen():
    class Post(ox.Module):
        weight: jax.Array
        double: jax.Array = ox.param(init=False)

        def __post_init__(self):
            self.double = 2 * self.weight

    assert Post(jnp.ones(2)).double.tolist() == [2, 2]


def test_inheritance_and_super_init():
    class Base(ox.Module):
        weight: jax.Array
        size: int = ox.static()

        def __init__(self, size):
            self.size, self.weight = size, jnp.zeros(size)

        def call(self, x):
            return x + self.weight

    class Child(Base):
        bias: jax.Array = ox.param()

        def __init__(self, size):
            super().__init__(size)
            self.bias = jnp.ones(size)

        def call(self, x):
            return super().call(x) + self.bias

    assert Child(2)(jnp.ones(2)).tolist() == [2, 2] and isinstance(Child(2), Base)


def test_inherited_fields_and_calls():
    class Wider(Dense):
        extra: jax.Array = ox.state(default_factory=lambda: jnp.zeros(1))

    y, wider = Wider(jnp.ones((2, 3)), rate=0.1).call_and_update(jnp.ones(2))
    assert wider.count == 1 and wider.extra.shape == (1,) and y.shape == (3,)


def test_a_super_call_writes_the_same_state_once():
    class Again(Dense):
        def call(self, x):
            y = super().call(x)
            self.assign(count=self.count + 10)
            return y

    assert Again(jnp.ones((2, 3))).update(jnp.ones(2)).count == 11


def test_generic_modules():
    class Wrapper(ox.Module, Generic[T]):
        inner: T

        def call(self, x):
            return self.inner(x)

    module = Wrapper[Dense](dense())
    assert type(module) is Wrapper and module.update(jnp.ones(2)).inner.count == 1


def test_abstract_methods():
    class Shape(ox.Module):
        @abc.abstractmethod
        def call(self, x): ...

    class Square(Shape):
        def call(self, x):
            return x * x

    with pytest.raises(TypeError, match="abstract"):
        Shape()
    assert Square()(3) == 9


def test_modules_compare_and_hash_by_identity():
    one, other = dense(), dense()
    assert one == one and one != other and len({one, other, one}) == 2


@pytest.mark.parametrize("field", ["kernel", "count", "rate", "name", "unheard"])
def test_setting_and_deleting_are_refused(field):
    module = dense()
    with pytest.raises(dataclasses.FrozenInstanceError, match=rf"`{field}` of Dense.*frozen"):
        setattr(module, field, 1)
    with pytest.raises(dataclasses.FrozenInstanceError, match=rf"`{field}` of Dense.*frozen"):
        delattr(module, field)
    assert module.rate == 0.5


def test_a_repr_shows_class_fields_and_shapes():
    assert repr(Box(jnp.ones((2, 3)))) == "Box(inner=f32[2,3])"
    shown = repr(dense(name="first", rate=0.1))
    assert "name='first'" in shown and "kernel=f32[2,3]" in shown and "count=i32[]" in shown
    assert "rate=0.1" in shown


@pytest.mark.parametrize("leaf", [None, object(), "text", 3, jax.ShapeDtypeStruct((2,), "int8")])
def test_unflattening_runs_no_init_and_no_check(leaf):
    class Strict(ox.Module):
        weight: jax.Array

        def __init__(self, weight):
            assert isinstance(weight, jax.Array), "checked"
            self.weight = weight

        def __post_init__(self):
            raise AssertionError("run")

    module = Strict(jnp.ones(2))
    treedef = jax.tree.structure(module)
    assert jax.tree.unflatten(treedef, [leaf]).weight is leaf
    assert jax.tree.map(lambda _: leaf, module).weight is leaf
    assert type(jax.eval_shape(lambda m: m, module)) is Strict


def test_key_paths_are_the_names_of_fields():
    flat = jax.tree_util.tree_flatten_with_path(Box([dense(), {"k": jnp.ones(1)}]))[0]
    paths = [jax.tree_util.keystr(path) for path, _ in flat]
    assert paths == [".inner[0].kernel", ".inner[0].count", ".inner[1]['k']"]


def test_plain_transforms_take_modules_without_filtering():
    module = dense()
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(module))
    y, new = jax.jit(ox.call_and_update)(module, jnp.ones(2))
    assert new.activation is module.activation and new.count == 1 and y.shape == (3,)
    assert jax.vmap(lambda m, x: m(x), (None, 0))(module, jnp.ones((4, 2))).shape == (4, 3)
