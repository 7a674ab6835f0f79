"""Errors and compiled programs say in which module (S18), and errors what to write instead."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hosts import both
from jax import lax

import oryxstate as ox
from oryxstate import nn

KEY, X = jax.random.key(0), jnp.ones(2)
DENSE = nn.Dense.of(2).init(KEY, X)


class Mul(ox.Module):
    w: jax.Array

    def call(self, x):
        return x @ self.w


class Rule(ox.Module):
    inner: Any

    def call_and_update(self, x):
        return self.inner(x), self


class Net(ox.Module):
    layers: list
    run: Any = ox.static(default=None)

    def call(self, x):
        for layer in self.layers:
            x = layer(x) if self.run is None else self.run(layer, x)
        return x


def notes(run):
    with pytest.raises(Exception) as caught:
        run()
    return [n for n in getattr(caught.value, "__notes__", ()) if n.startswith("in ")]


def broken(run=None):
    return Net([Net([Mul(jnp.ones((2, 2))), Mul(jnp.ones((3, 2)))], run)])


PATH = ["in 'layers[0].layers[1]' (Mul.call)", "in 'layers[0]' (Net.call)", "in Net.call"]


def test_an_error_of_jax_carries_the_path_of_each_module_on_its_way():
    for run in both(broken()):
        assert notes(lambda run=run: run(X)) == PATH


@pytest.mark.parametrize(
    "run",
    [
        lambda layer, x: jax.jit(lambda x: layer(x))(x),
        lambda layer, x: jax.checkpoint(lambda x: layer(x))(x),
        lambda layer, x: jax.vmap(lambda x: layer(x))(x[None])[0],
        lambda layer, x: lax.scan(lambda h, _: (layer(h), None), x, None, length=2)[0],
        lambda layer, x: lax.cond(True, lambda x: layer(x), lambda x: x, x),
    ],
)
def test_a_transformation_between_keeps_it(run):
    assert notes(lambda: broken(run)(X)) == PATH


def test_a_rule_a_method_and_super_are_noted_once():
    assert notes(lambda: Net([Rule(Mul(jnp.ones((3, 2))))])(X))[-2:] == [
        "in 'layers[0]' (Rule.call_and_update)",
        "in Net.call",
    ]

    class Sub(Mul):
        def call(self, x):
            return super().call(x)

        def other(self, x):
            return self(x)

    bad = Sub(jnp.ones((3, 2)))
    assert notes(lambda: bad(X)) == ["in Sub.call"]
    assert notes(lambda: ox.call(bad.other, X)) == ["in Sub.call", "in Sub.other"]


def test_no_note_without_an_exception_that_leaves():
    class Catches(ox.Module):
        inner: Any

        def call(self, x):
            try:
                return self.inner(x)
            except TypeError:
                return x

    assert (Catches(Mul(jnp.ones((3, 2))))(X) == X).all()


def test_compiled_programs_carry_the_paths():
    class Tap(ox.Module):
        n: jax.Array = ox.state()

        def call(self, x):
            self.assign(n=self.n + 1)
            return jnp.sin(x)

    model = Net([Net([Mul(jnp.ones((2, 2))), Tap(jnp.int32(0))])])
    text = jax.jit(ox.call_and_update).lower(model, X).as_text(debug_info=True)
    for tail in (r"Net/layers\[0\]/layers\[0\]/dot_general", r"Net/layers\[0\]/layers\[1\]/sin"):
        assert re.search(tail, text), tail


# What to write instead ----------------------------------------------------------------------------


class Holds(ox.Module):
    field: Any


def name_as_a_field():
    class A(ox.Module):
        name: str


MISUSES = {
    "parameters of a template": (lambda: nn.Dense(64), r"Write the template `Dense\.of\(64\)`"),
    "the size of the input": (
        lambda: nn.Dense(3, 64),
        r"`Dense\.of\(64\)` \(it sees the size of its input, here 3\)",
    ),
    "no parameters": (lambda: nn.BatchNorm(), r"`BatchNorm\.of\(\)`"),
    "attention": (lambda: nn.MultiHeadAttention(8, 64), r"`MultiHeadAttention\.of\(heads, "),
    "a number as key": (lambda: ox.init(nn.Dense.of(2))(0, X), r"jax\.random\.key\(0\)`, but got"),
    "a template in a field": (
        lambda: Holds([nn.Dense.of(2)]),
        r"field `field` of Holds \(at `field\[0\]`\) holds the template Dense\.of\(2\).*ox\.init",
    ),
    "a function in a list": (
        lambda: Holds([DENSE, jax.nn.relu]),
        r"\(at `field\[1\]`\) holds the function `relu` of type .*`nn\.Lambda\(relu\)`",
    ),
    "a field called name": (name_as_a_field, r"field `name` of A: every module has"),
    "a chain of a made layer": (
        lambda: DENSE >> jax.nn.relu,
        r"`ox\.init\(Dense\.of\(\.\.\.\) >> relu\)\(key, x\)`.*nn\.Serial",
    ),
    "a chain that ends in a made layer": (lambda: jax.nn.relu >> DENSE, r"relu >> Dense\.of"),
    "Linear": (lambda: nn.Linear, r"Here it is `nn\.Dense`"),
    "Conv2d": (lambda: nn.Conv2d, r"Here it is `nn\.Conv`"),
    "Relu": (lambda: nn.Relu, r"`nn\.Dense\.of\(64\) >> jax\.nn\.relu`"),
    "Dens": (lambda: nn.Dens, r"Did you mean `nn\.Dense`"),
}


@pytest.mark.parametrize("what", MISUSES)
def test_a_misuse_says_what_to_write(what):
    run, text = MISUSES[what]
    with pytest.raises((TypeError, AttributeError), match=text):
        run()


def test_a_list_where_an_array_is_taken():
    for layer in nn.Flatten(), Net([nn.Flatten()]):
        with pytest.raises(AttributeError) as caught:
            layer([[1.0], [2]])
        assert "write `jnp.asarray(x)`" in caught.value.__notes__[0]


def test_errors_of_construction_with_fields_stay_as_they_are():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'bias'"):
        nn.Dense(jnp.ones((2, 2)))
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'kernel'"):
        nn.Dense(bias=None)
    with pytest.raises(AttributeError, match="has no attribute '__wrapped__'"):
        nn.__wrapped__  # noqa: B018
