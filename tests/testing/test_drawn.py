"""Laws on modules and inputs drawn from a class, a template or a strategy."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st
from jaxtyping import Array, Float

import oryxstate as ox
from oryxstate import ArraySpec, nn
from oryxstate.testing import LawError, TemplateExample, cases, check_module, modules, templates

FEW = ["runs", "jit_is_eager", "stable_types"]


class Scale(ox.Module):
    factor: Float[Array, " n"] = ox.param()
    count: Float[Array, ""] = ox.state()

    def call(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        self.assign(count=self.count + 1)
        return self.factor * x


class Root(Scale):
    def call(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return jnp.sqrt(jnp.abs(x)) * self.factor


class Sign(ox.Module):
    def call(self, x: Float[Array, ""]):
        return x > 0


EXAMPLE = TemplateExample(nn.Dense.of(2), (ArraySpec(3),))
SUBJECTS = {
    "class": Scale,
    "layer": nn.Dense,
    "layer of batches": nn.BatchNorm,
    "template": EXAMPLE,
    "strategy": modules(Scale, count=jnp.float32(7)),
    "strategy of templates": templates(nn.LayerNorm),
}


@pytest.mark.parametrize("name", SUBJECTS)
def test_what_is_drawn_is_checked(name):
    report = check_module(SUBJECTS[name], laws=FEW)
    assert report.checked == ("runs", "stable_types", "jit_is_eager")


def test_the_smallest_example_is_reported_with_its_code():
    with pytest.raises(LawError) as caught:
        check_module(Root, laws=["finite_gradient"])
    text = str(caught.value)
    assert "`finite_gradient` does not hold for Root." in text
    assert "jnp.array([0.0], 'float32'), laws=['finite_gradient'])" in text


def test_a_law_applies_if_it_does_to_one_of_them():
    both = st.sampled_from([Sign(), Scale(jnp.ones(2), jnp.float32(0))])
    assert check_module(both, laws=["finite_gradient"]).not_applicable == {}
    alone = check_module(Sign, laws=["finite_gradient", "runs"])
    assert alone.checked == ("runs",) and list(alone.not_applicable) == ["finite_gradient"]


@settings(max_examples=5)
@given(cases(nn.BatchNorm))
def test_a_layer_of_batches_has_several_examples(case):
    assert case.batched and case.args[0].shape[1:][case.module.axis] == case.module.mean.size
    assert case.args[0].ndim >= 2


def test_one_example_may_be_asked_for():
    assert not find(cases(nn.BatchNorm, batched=False), lambda case: True).batched


INPUTS = {
    "tuple": (jnp.ones(2),),
    "function": lambda module: (jnp.ones(2),),
    "strategy": st.just(((jnp.ones(2),), {})),
    "function of a strategy": lambda module: st.just(((jnp.ones(2),), {})),
}


@pytest.mark.parametrize("way", INPUTS)
def test_inputs_may_be_given(way):
    found = find(cases(modules(Scale, sizes={"n": 2}), INPUTS[way]), lambda case: True)
    assert found.args[0].tolist() == [1, 1] and found.kwargs == {} and not found.batched


def test_a_module_is_checked_as_it_is():
    module = Scale(jnp.ones(3), jnp.float32(5))
    found = find(cases(module), lambda case: True)
    assert found.module is module and found.args[0].shape == (3,)


def test_what_cannot_be_drawn():
    with pytest.raises(TypeError, match=r"Dense.of\(2\) is a template, whose inputs are not known"):
        check_module(nn.Dense.of(2))
    with pytest.raises(TypeError, match="laws are checked on models, but got 3"):
        check_module(st.just(3))
    with pytest.raises(TypeError, match="give a class of modules, got <class 'int'>"):
        check_module(int)
    with pytest.raises(TypeError, match="draws the inputs of modules that it draws"):
        check_module(Scale, jnp.ones(3))


def test_a_case_prints_as_code():
    case = find(cases(EXAMPLE, (jnp.zeros(3),)), lambda case: True)

    @settings(max_examples=1, database=None)
    @given(st.just(case))
    def fails(case):
        raise ValueError

    with pytest.raises(ValueError) as caught:
        fails()
    printed = "\n".join(caught.value.__notes__)
    assert "Case(module=Dense(" in printed and "args=(jnp.array([0.0, 0.0, 0.0]" in printed
