"""A field shares its name with nothing else, which one of the two would hide (S1)."""

import abc
import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import pytest

import oryxstate as ox
from oryxstate import nn

SPECIFIERS = [ox.param, ox.state, ox.static, lambda: dataclasses.field()]


class Properties(ox.Module):
    @property
    def scale(self):
        return jnp.float32(1)

    @functools.cached_property
    def kept(self):
        return jnp.float32(1)

    def rate(self):
        return 1

    @classmethod
    def made(cls):
        return 1

    @staticmethod
    def fixed():
        return 1


class Fields(ox.Module):
    scale: jax.Array = ox.param()
    count: jax.Array = ox.state(default_factory=lambda: jnp.array(0))
    rate: float = ox.static(default=1.0)


def subclass(*bases, **body):
    return type(ox.Module)("Sub", bases, {"__module__": __name__, **body})


def with_field(name, *bases, specifier=ox.param):
    return subclass(*bases, __annotations__={name: Any}, **{name: specifier()})


@pytest.mark.parametrize("specifier", SPECIFIERS)
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("scale", "property"),
        ("kept", "property"),
        ("rate", "method"),
        ("made", "method"),
        ("fixed", "method"),
    ],
)
def test_a_field_over_an_inherited_attribute_is_refused(name, kind, specifier):
    between = subclass(Properties)
    mixin = type("Mixin", (), {name: vars(Properties)[name]})
    for bases, owner in (
        ((Properties,), "Properties"),
        ((between,), "Properties"),
        ((mixin, ox.Module), "Mixin"),
        ((ox.Module, mixin), "Mixin"),
    ):
        with pytest.raises(TypeError) as caught:
            with_field(name, *bases, specifier=specifier)
        assert f"field `{name}` of Sub and the {kind} `{owner}.{name}`" in str(caught.value)
        assert "Call one of them differently" in str(caught.value)


@pytest.mark.parametrize("name", ["scale", "count", "rate", "name"])
def test_a_property_or_method_over_an_inherited_field_is_refused(name):
    owner = "Module" if name == "name" else "Fields"
    for value, kind in ((property(lambda self: 1), "property"), (lambda self: 1, "method")):
        for base in (Fields, subclass(Fields)):
            with pytest.raises(TypeError, match=f"`{name}` of {owner} and the {kind} `Sub.{name}`"):
                subclass(base, **{name: value})
        mixin = type("Mixin", (), {name: value})
        for bases in ((mixin, Fields), (Fields, mixin)):
            with pytest.raises(TypeError, match=f"of {owner} and the {kind} `Mixin.{name}`"):
                subclass(*bases)


def test_a_default_without_annotation_is_refused():
    """Dataclasses ignore it: the field keeps the default of the class that declares it."""
    with pytest.raises(TypeError, match=r"declare it again: `rate: \.\.\. = 0.5`"):
        subclass(Fields, rate=0.5)
    again = subclass(Fields, __annotations__={"rate": float}, rate=ox.static(default=0.5))
    assert again(jnp.ones(1)).rate == 0.5


@pytest.mark.parametrize("name", ["call", "update", "variables", "call_batched", "__keywords__"])
def test_a_field_with_a_name_of_module_is_refused(name):
    with pytest.raises(TypeError, match=f"field `{name}` of Sub"):
        with_field(name, ox.Module)


@pytest.mark.parametrize(
    "name", ["params", "state", "info", "check", "of", "new", "spec", "trains", "replace"]
)
def test_a_field_with_a_name_of_layer_is_refused(name):
    for base in (nn.Layer, subclass(nn.Layer)):
        with pytest.raises(TypeError, match=f"field `{name}` of Sub and the .* `Layer.{name}`"):
            with_field(name, base)


def test_a_plain_module_has_fields_with_names_of_layer():
    for name in ("params", "state", "info", "spec"):
        assert with_field(name, ox.Module)(jnp.ones(2)).replace(**{name: jnp.zeros(1)})


class Abstract(ox.Module):
    @property
    @abc.abstractmethod
    def scale(self) -> Any: ...

    @abc.abstractmethod
    def activation(self, x): ...

    def call(self, x):
        return self.activation(x * self.scale)


@pytest.mark.parametrize("specifier", [ox.param, ox.state, lambda: dataclasses.field()])
def test_a_field_implements_an_abstract_attribute(specifier):
    half = with_field("scale", Abstract, specifier=specifier)
    with pytest.raises(TypeError, match="activation"):
        half(jnp.ones(1))
    full = with_field("activation", half, specifier=ox.static)
    with pytest.raises(TypeError, match="missing"):
        full(jnp.float32(3))
    module = full(jnp.float32(3), jnp.negative)
    assert ox.call(module, 2.0) == jax.jit(ox.call)(module, 2.0) == -6
    assert jax.tree.leaves(module) == [3]


def test_a_field_implements_the_abstract_property_of_a_mixin():
    class HasRate(abc.ABC):
        @property
        @abc.abstractmethod
        def rate(self): ...

        @property
        @abc.abstractmethod
        def count(self): ...

    for bases in ((HasRate, Fields), (Fields, HasRate)):
        module = subclass(*bases)(jnp.ones(1))
        assert (module.rate, module.count) == (1.0, 0)


def test_a_field_replaces_a_constant():
    class Fixed(ox.Module):
        rate = 1.0
        size: ClassVar[int] = 1

        def call(self, x):
            return self.rate * x

    class Learned(Fixed):
        rate: jax.Array = ox.param()
        size: int = ox.static()

    module = Learned(rate=jnp.float32(3), size=4)
    assert ox.call(module, 2.0) == jax.jit(ox.call)(module, 2.0) == 6 and module.size == 4
