"""Compiled steps: the results of `jax.jit`, a state that stays flat, donation."""

import copy
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from strategies import assert_same

import oryxstate as ox


class Sum(ox.Module):
    """Adds up what it is given, times a weight."""

    weight: jax.Array = ox.param()
    total: jax.Array = ox.state()
    factor: float = ox.static(default=1.0)

    def call(self, x):
        self.assign(total=self.total + self.factor * x)
        return self.weight * self.total


def made(factor: float = 1.0) -> Sum:
    return Sum(jnp.array(2.0), jnp.zeros(()), factor)


OPTIMIZER = optax.sgd(0.1, momentum=0.9)


def train(state, x, *, scale=1.0):
    """A step of training, with keywords and a pytree as its output."""
    model, optimizer_state = state
    loss = lambda model: ox.call_and_update(model, x["x"] * scale)  # noqa: E731
    (value, model), gradient = ox.value_and_grad(loss, has_aux=True)(model)
    updates, optimizer_state = OPTIMIZER.update(gradient, optimizer_state)
    return (eqx.apply_updates(model, updates), optimizer_state), {"loss": value}


def start():
    return made(), OPTIMIZER.init(ox.partition(made())[0])


@pytest.mark.parametrize("donate", [False, True])
def test_results_are_those_of_jit(donate):
    step, jitted = ox.step(train, donate=donate), jax.jit(train)
    state, expected = start(), start()
    for i in range(3):
        x = {"x": jnp.float32(i)}
        state, out = step(state, x, scale=i + 0.5)
        expected, wanted = jitted(expected, x, scale=i + 0.5)
        assert_same(out, wanted)
    assert type(state) is ox.Flat
    assert_same(state.value, expected)


def counted(function, **options):
    """A step, and the list that grows by one at each trace."""
    traces = []

    def run(*args, **kwargs):
        traces.append(None)
        return function(*args, **kwargs)

    return ox.step(run, **options), traces


def test_a_state_is_not_put_together_between_calls(monkeypatch):
    step, traces = counted(train)
    state, _ = step(start(), {"x": 1.0})
    unflatten, calls = jax.tree.unflatten, []
    monkeypatch.setattr(jax.tree, "unflatten", lambda *a: calls.append(a) or unflatten(*a))
    for _ in range(3):
        state, _ = step(state, {"x": 1.0})
    assert len(traces) == 1 and calls == []
    first, second = state.value, state.value
    assert len(calls) == 2 and first is not second  # looked at, and safe to change


def test_another_static_field_or_shape_is_traced_anew():
    step, traces = counted(lambda m, x: ox.call_and_update(m, x)[::-1])
    for factor, count in (1.0, 1), (2.0, 2), (1.0, 2), (1, 3):
        state, y = step(made(factor), 1.0)
        assert (float(y), len(traces)) == (2.0 * factor, count)
        step(state, 1.0)
        assert len(traces) == count
    step(made().replace(total=jnp.zeros(2)), 1.0)
    assert len(traces) == 4
    step(state.value, 1.0)  # the same as the flat one
    assert len(traces) == 4


def test_arguments_compared_by_value():
    def function(m, x, mode):
        return m, x if mode == "same" else -x

    with pytest.raises(TypeError, match=r"\bmode\b"):
        ox.step(function)(made(), 1.0, "same")
    step = ox.step(function, static_argnames="mode")
    assert float(step(made(), 1.0, mode="same")[1]) == 1.0
    assert float(step(made(), 1.0, "other")[1]) == -1.0


def test_functions_among_the_leaves_are_static():
    """As under `eqx.filter_jit`: Equinox models need no partition."""
    model = eqx.nn.MLP(2, 1, 3, 1, activation=jnp.tanh, key=jax.random.key(0))
    step, traces = counted(lambda state, x: (state, state["model"](x)))
    x, state = jnp.ones(2), {"model": model, "name": "mlp", "step": 0}
    for _ in range(2):
        state, y = step(state, x)
    assert_same(y, model(x))
    assert len(traces) == 1
    assert state.value["name"] == "mlp" and state.value["model"].activation is jnp.tanh


def test_numbers_in_equinox_modules_are_static():
    """Also as under `eqx.filter_jit`: such modules branch on them."""
    state = {"dropout": eqx.nn.Dropout(0.5), "scale": 2.0}
    key, x = jax.random.key(0), jnp.ones(8)
    run = lambda s, x: (s, s["scale"] * s["dropout"](x, key=key))  # noqa: E731
    state, y = ox.step(run)(state, x)
    assert_same(y, 2.0 * eqx.nn.Dropout(0.5)(x, key=key))
    assert state.value["dropout"].p == 0.5 and list(ox.named_leaves(state)) == ["['scale']"]

    def changed(s, x):
        return {**s, "dropout": eqx.nn.Dropout(x)}, x

    message = r"what is static in it, `\['dropout'\]\.p`, has changed\. .* make a number an array"
    with pytest.raises(TypeError, match=message):
        ox.step(changed)(state, 0.1)


@pytest.mark.parametrize("leaf", [np.array(["a", "b"]), {"a"}])
def test_a_static_leaf_without_a_hash(leaf):
    message = (
        rf"^`\['names'\]` of the state is of type {type(leaf).__name__}, which is neither data"
    )
    with pytest.raises(TypeError, match=message):
        ox.Flat({"weight": jnp.ones(2), "names": leaf})


def test_a_flat_state_is_a_pytree():
    flat = ox.Flat({"model": made(), "f": np.tanh})
    assert list(ox.named_leaves(flat)) == ["['model'].weight", "['model'].total"]
    doubled = jax.tree.map(lambda a, b: a + b, flat, ox.Flat({"model": made(), "f": np.tanh}))
    assert float(doubled.value["model"].weight) == 4.0
    for other in (pickle.loads(pickle.dumps(flat)), copy.deepcopy(flat)):
        assert_same(other, flat)
    assert repr(ox.Flat(made())) == f"Flat({made()!r})"
    spec = jax.eval_shape(lambda flat: flat, flat)
    assert spec.value["model"].weight == jax.ShapeDtypeStruct((), jnp.float32, weak_type=True)


def test_steps_within_transformations():
    step = ox.step(lambda m, x: ox.call_and_update(m, x)[::-1])

    def loss(weight):
        state, _ = step(made().replace(weight=weight), 1.0)
        return step(state, 2.0)[1]

    assert float(jax.jit(jax.grad(loss))(jnp.float32(2.0))) == 3.0
    bodies = jax.lax.scan(step, ox.Flat(made()), jnp.arange(3.0))
    assert np.allclose(bodies[1], [0.0, 2.0, 6.0])


def test_a_donated_state_is_refused():
    step = ox.step(train, donate=True)
    first, _ = step(start(), {"x": 1.0})
    kept = first.value[0]
    second, _ = step(first, {"x": 1.0})
    message = (
        r"^this state was donated: the memory of `\[0\]\.weight`, `\[0\]\.total`.* belongs to the"
        r" state that a later call returned\. Go on with that one"
    )
    for used in (
        lambda: step(first, {"x": 1.0}),
        lambda: first.value,
        lambda: step((kept, second.value[1]), {"x": 1.0}),
    ):
        with pytest.raises(RuntimeError, match=message):
            used()
    assert repr(first) == "Flat(donated)"
    assert float(second.value[0].total) == 2.0


def test_an_error_of_a_call_that_took_the_state():
    def fails(x):
        raise ValueError("boom")

    def f(total, x):
        return total + jax.pure_callback(fails, jax.ShapeDtypeStruct((), jnp.float32), x), x

    with pytest.raises(RuntimeError, match="boom"):
        jax.block_until_ready(ox.step(f, donate=True)(jnp.zeros(3), 1.0))


def test_an_array_that_stands_in_a_state_twice():
    array = jnp.ones(3)
    state = {"model": {"w": array}, "average": {"w": array}}
    step = ox.step(lambda s, x: ({**s, "average": s["model"]}, x), donate=True)
    with pytest.raises(
        ValueError, match=r"^`\['average'\]\['w'\]` and `\['model'\]\['w'\]` of the"
    ):
        step(state, 1.0)
    state["average"] = jax.tree.map(jnp.copy, state["model"])
    for _ in range(2):  # what a step returns twice has two places in memory
        state, _ = step(state, 1.0)
    array = np.ones(3)  # which JAX copies
    step({"model": {"w": array}, "average": {"w": array}}, 1.0)


WRONG = {
    "returns a pair, .* but `f` returned a Sum": lambda s, x: s,
    r"returns a pair, .* but `f` returned an array, float32\[\]\. Return": lambda s, x: s.total,
    "returns a pair, .* but `f` returned a tuple of 3": lambda s, x: (s, x, x),
    r"it stands second\. Return `\(state, output\)`": lambda s, x: ox.call_and_update(s, x),
    r"`weight`, `total` is missing and `\['x'\]` is new": lambda s, x: ({"x": x}, x),
    "what is static in it has changed": lambda s, x: (s.replace(factor=3.0), x),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_no_step_is_refused(message):
    def f(state, x):
        return WRONG[message](state, x)

    with pytest.raises(TypeError, match=message):
        ox.step(f)(made(), 1.0)


def test_errors_of_the_function_are_its_own():
    def f(state, x):
        raise ValueError("mine")

    for donate in (False, True):
        with pytest.raises(ValueError, match=r"^mine"):
            ox.step(f, donate=donate)(made(), 1.0)
    assert (ox.step(train).__name__, ox.step(train).__doc__) == ("train", train.__doc__)
