"""Laws on models of Equinox and optax, on callable pytrees, functions and pairs of them.

Those of Flax and Haiku are in `peers_laws.py`.
"""

from __future__ import annotations

import functools
import re
import warnings
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import find, given, settings
from jaxtyping import Array, Float, PRNGKeyArray

import oryxstate as ox
from oryxstate.testing import LAWS, Adapted, Functions, LawError, adapt, cases, check_module

KEY = jax.random.key(0)
X = jnp.array([1.0, 2.0, 4.0])
BATCH = jnp.stack([X, 2 * X])
FEW = ["no_static_array", "pytree_round_trip", "stable_types", "purity", "no_retrace"]


class Affine(eqx.Module):
    """Arrays, a function, and a flag that is a leaf."""

    weight: Float[Array, "n m"]
    bias: Float[Array, " m"]
    activation: Any = jnp.tanh
    inference: bool = False

    def __call__(self, x: Float[Array, " n"], *, key: PRNGKeyArray | None = None):
        noise = 0.0 if key is None else jax.random.normal(key, self.bias.shape)
        return self.activation(x @ self.weight + self.bias + noise)


class Holds(eqx.Module):
    """A module of ours beside a function."""

    inner: ox.Module
    activation: Any

    def __call__(self, x):
        return self.activation(self.inner(x))


class Total(ox.Module):
    total: Float[Array, ""] = ox.state()

    def call(self, x):
        self.assign(total=self.total + x.sum())
        return x - self.total


@jax.tree_util.register_pytree_node_class
class Counts:
    """Counts its calls by assigning to itself."""

    def __init__(self, scale, count):
        self.scale, self.count = scale, count

    def tree_flatten(self):
        return (self.scale, self.count), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)

    def __call__(self, x):
        self.count = self.count + 1
        return self.scale * x


class Static(eqx.Module):
    """Has an array in a static field of a module in a list."""

    parts: list[Any]

    def __call__(self, x):
        return x * self.parts[0].table.sum()


class Table(eqx.Module):
    table: np.ndarray = eqx.field(static=True)


class Forgets(eqx.Module):
    """Does not return its state."""

    count: eqx.nn.StateIndex

    def __init__(self):
        self.count = eqx.nn.StateIndex(jnp.float32(0))

    def __call__(self, x, state):
        state.set(self.count, state.get(self.count) + 1)
        return x


class Running(Forgets):
    """Adds to a sum, of which a rule of a cast may change the dtype."""

    def __call__(self, x, *, state):
        total = state.get(self.count) + x.sum()
        return x * total, 2 * x, state.set(self.count, total)


with warnings.catch_warnings(action="ignore"):  # Equinox warns of it
    STATIC = Static([Table(np.ones(2))])
AFFINE = Affine(jnp.ones((3, 2)), jnp.zeros(2))
NORM, NORM_STATE = eqx.nn.make_with_state(eqx.nn.BatchNorm)(3, "examples", mode="batch")
FORGETS, STATE = eqx.nn.make_with_state(Forgets)()
RUNNING, RUNNING_STATE = eqx.nn.make_with_state(Running)()


def init(key, x):
    return {"kernel": jax.random.normal(key, (x.shape[-1], 2))}


def apply(params, x):
    return jnp.tanh(x @ params["kernel"])


def init_counting(key, x):
    return init(key, x), {"count": jnp.zeros(())}


def apply_counting(params, state, x):
    return apply(params, x) * state["count"], {"count": state["count"] + 1}


COUNTING = Functions(init_counting, apply_counting, has_state=True, name="Net")
# A model with its arguments, the options, and its kind in words.
RIGHT: dict[str, tuple[tuple, dict, str, str]] = {
    "Equinox": ((AFFINE, X), {}, "Affine", "Equinox module"),
    "with a key": ((AFFINE, X), {"key": KEY}, "Affine", "Equinox module"),
    "with state": (
        (NORM, BATCH, NORM_STATE),
        {"batched": "examples"},
        "BatchNorm",
        "Equinox module with state",
    ),
    "state by name": (
        (RUNNING, X),
        {"state": RUNNING_STATE},
        "Running",
        "Equinox module with state",
    ),
    "ours inside": (
        (Holds(Total(jnp.float32(0)), jnp.tanh), X),
        {},
        "Holds",
        "pytree of oryxstate modules",
    ),
    "ours and a function": (([Total(jnp.float32(0)), jnp.tanh], X), {}, "list", "pytree of"),
    "a callable pytree": ((jax.tree_util.Partial(apply, init(KEY, X)), X), {}, "Partial", "callab"),
    "a function": ((jnp.tanh, X), {}, "tanh", "function"),
    "a pair": (((init, apply), X), {}, "apply", "pair of functions"),
    "a pair with state": ((COUNTING, X), {}, "Net", "pair of functions"),
    "an optimizer": (
        (optax.adam(1e-3), {"w": X}, {"w": 2 * X}),
        {},
        "chain",
        "optax gradient transformation",
    ),
    "one without params": ((optax.trace(0.9), {"w": X}), {}, "trace", "optax gradient transform"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_model(name):
    given, options, model, label = RIGHT[name]
    with jax.numpy_dtype_promotion("standard"):  # of which optax makes use
        report = check_module(*given, laws=[*FEW, "scan_is_loop"], **options)
    assert set(report.checked) | {"no_static_array"} == {*FEW, "scan_is_loop"}
    assert report.model == model and report.label.startswith(label)


def test_all_laws_of_an_equinox_model():
    report = check_module(AFFINE, X)
    assert set(report.not_applicable) == {
        "annotations_hold",
        "call_is_part",
        "update_round_trip",
        "gradient_across_calls",  # it has no state
    }


def test_state_is_neither_learned_nor_an_input():
    adapted = adapt(RUNNING, (X,), {"state": RUNNING_STATE})
    learned, rest = adapted.partition(adapted.values)
    assert jax.tree.leaves(learned) == [] and len(jax.tree.leaves(rest)) == 1
    assert adapted.left((X,), {"state": RUNNING_STATE}) == ((X,), {"state": None})
    report = check_module(RUNNING, X, state=RUNNING_STATE, laws=["gradient_across_calls"])
    assert report.checked == ("gradient_across_calls",)


def test_params_of_a_pair_are_learned_and_its_state_is_not():
    adapted = adapt(COUNTING, (X,), {})
    learned, (_, state) = adapted.partition(adapted.values)
    assert [leaf.shape for leaf in jax.tree.leaves(learned)] == [(3, 2)]
    assert state == adapted.values[1]


def changes_dtype() -> optax.GradientTransformation:
    def update(updates, state, params=None):
        return updates, (state + 1).astype(jnp.float32)

    return optax.GradientTransformation(lambda params: jnp.int32(0), update)


def counts(updates, state, params=None):
    return updates, state + 1


PARTIAL = optax.GradientTransformation(lambda params: jnp.int32(0), functools.partial(counts))


def draws(x):
    return x + np.random.normal()


# A model with its arguments, the law that it breaks, and what is found.
WRONG: dict[str, tuple[tuple, str, str]] = {
    "assigns to itself": (
        (Counts(jnp.ones(3), jnp.int32(0)), X),
        "purity",
        r"assigned to `\[<flat index 1>\]` of the Counts itself. .* return what changes",
    ),
    "static array": (
        (STATIC, X),
        "no_static_array",
        r"`parts\[0\].table` is an array in a static field. Declare it without `static`",
    ),
    "state that is not returned": (
        (FORGETS, X, STATE),
        "runs",
        "Forgets is called with a `State`, so it must return its output and the new state",
    ),
    "state of another dtype": ((changes_dtype(), X), "stable_types", "float32.*int32.* before"),
    "global random numbers": ((draws, X), "reproducible rng_order", "draw from a key of JAX"),
    "an init that raises": (
        (Functions(lambda key, x: 1 / 0, apply), X),
        "runs",
        "arrays of the model could not be made: ZeroDivisionError.*Reproduce: check_module.model, ",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_broken_model(name):
    given, law, found = WRONG[name]
    with pytest.raises(LawError) as caught:
        check_module(*given, laws=[*FEW, "runs", "rng_order", "reproducible"])
    assert set(caught.value.laws) <= set(law.split())
    assert re.search(found, str(caught.value), re.DOTALL)


def test_a_failure_has_code_if_the_fields_make_the_model():
    with pytest.raises(LawError, match=r"Reproduce: check_module\(Affine\(weight=jnp.array\(\[\["):
        check_module(AFFINE, jnp.ones(2))
    with pytest.raises(LawError, match=r"Reproduce: check_module\(model, .*, state, laws="):
        check_module(FORGETS, X, STATE)


@settings(max_examples=5)
@given(cases(Affine), cases(AFFINE, batched=True))
def test_models_of_equinox_are_drawn_by_their_annotations(drawn, batched):
    assert drawn.module.weight.shape == (*drawn.args[0].shape, *drawn.module.bias.shape)
    assert batched.args[0].shape == (3, 3) and batched.module is AFFINE


def test_a_class_of_equinox_is_checked():
    report = check_module(Affine, laws=["pytree_round_trip"])
    assert report.checked == ("pytree_round_trip",)
    assert (report.model, report.label) == ("Affine", "Equinox module")


class Square(eqx.Module):
    """An `__init__` whose argument is not the field of that name."""

    size: tuple[int, int]
    weight: Float[Array, " n"]

    def __init__(self, size: Literal[3], weight: Float[Array, " n"]):
        self.size, self.weight = (size, size), weight

    def __call__(self, x: Float[Array, " n"]):
        return x * self.weight


def test_arguments_of_a_constructor_are_drawn_by_its_own_annotations():
    case = find(cases(Square), lambda case: len(case.args[0]) > 1)
    assert case.module.size == (3, 3) and case.args[0].shape == case.module.weight.shape


def doubled(x: Float[Array, "n n"]):
    return 2 * x


class Doubles(eqx.Module):
    def twice(self, x: Float[Array, "n n"]):
        return 2 * x


@pytest.mark.parametrize(
    "model",
    [jax.jit(doubled), eqx.filter_jit(doubled), Doubles().twice, eqx.filter_jit(Doubles().twice)],
)
def test_inputs_of_jitted_functions_and_of_methods(model):
    (x,) = find(cases(model), lambda case: len(case.args[0]) > 1).args
    assert x.shape == (2, 2)


def test_inputs_that_cannot_be_drawn():
    with pytest.raises(TypeError, match=r"`params` of `apply_counting` has no .*: `@laws\(mod"):
        find(cases(apply_counting), lambda case: True)
    with pytest.raises(TypeError, match=r"inputs of a Functions cannot be drawn.*: `@laws"):
        find(cases(COUNTING), lambda case: True)


def test_an_optimizer_is_given_gradients():
    with pytest.raises(LawError, match=r"is called with gradients.*check_module\(optimizer, grad"):
        check_module(optax.sgd(0.1))


def test_an_optimizer_of_partial_functions_is_named_by_its_class():
    report = check_module(PARTIAL, {"w": X}, laws=["runs"])
    assert (report.checked, report.model) == (("runs",), "GradientTransformation")


def test_kinds_are_known():
    with pytest.raises(ValueError, match=r"kind must be one of .*'optimizer'.*, got 'net'"):
        Adapted(None, (), apply, kind="net")  # type: ignore[arg-type]
    assert "optimizer" not in LAWS["finite_gradient"].kinds
    assert LAWS["call_is_part"].kinds == ("module",) and len(LAWS["runs"].kinds) == 4


class Mine:
    def __init__(self, size):
        self.weights = {"kernel": jnp.ones((size, 2)), "count": jnp.zeros(())}

    def forward(self, weights, x):
        return x @ weights["kernel"], weights | {"count": weights["count"] + 1}


def test_an_adapter_from_outside():
    with pytest.raises(TypeError, match=r"no adapter for Mine, and it cannot be called"):
        check_module(Mine(3), X)

    @adapt.register(Mine)
    def _(mine, args, kwargs):
        def split(weights):
            return {**weights, "count": None}, {"kernel": None, "count": weights["count"]}

        return Adapted(mine, mine.weights, mine.forward, split, label="model of mine")

    report = check_module(Mine(3), X, laws=[*FEW, "gradient_across_calls"])
    assert report.label == "model of mine" and "gradient_across_calls" in report.checked
