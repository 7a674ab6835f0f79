"""Functions are modules (S10). Each W names the flaw of the reference that it mends."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import oryxstate as ox

KEY = jax.random.key(0)
X = jnp.ones(3)


def dense(x, init_key=None):
    w = ox.variable(jax.random.normal(init_key, (3, 2)), name="w")
    return x @ w


def counting(x, step=1):
    n = ox.variable(0, name="n")
    ox.assign(n + step, name="n")
    return x * (n + 1)


def test_init_collects_variables_as_attributes():
    module = ox.init(dense)(KEY, X)
    assert isinstance(module, ox.FunctionModule) and list(module.variables()) == ["w"]
    assert module.w.shape == (3, 2)
    assert jnp.array_equal(module(X), X @ module.w)


def test_assigned_variables_are_state_and_the_others_params():
    def both(x):
        return x * ox.variable(jnp.ones(3), name="w") + counting(x)

    module = ox.init(both)(KEY, X)
    assert list(module.params) == ["w"] and list(module.states) == ["n"]
    params, rest = ox.partition(module)
    assert params.w is module.w and params.n is None and rest.n is module.n


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_calls_thread_what_is_assigned(transform):
    module = ox.init(counting)(KEY, 1.0)
    for expected in (1, 2, 3):
        y, module = transform(ox.call_and_update)(module, 1.0)
        assert (float(y), int(module.n)) == (expected, expected)
    assert ox.call(module, 1.0) == 4 and ox.update(module, 1.0).n == 4 and module.n == 3


def adds(x, y=0.0):
    return x + y + ox.variable(1.0, name="w")


class CallableObject:
    def __call__(self, x):
        return adds(x)

    def method(self, x):
        return adds(x)


@jax.custom_jvp
def custom(x):
    return adds(x)


custom.defjvp(lambda primals, tangents: (adds(*primals), tangents[0]))


@jax.custom_vjp
def custom_back(x):
    return adds(x)


custom_back.defvjp(lambda x: (adds(x), None), lambda _, g: (g,))

CALLABLES = {
    "function": adds,
    "lambda": lambda x: adds(x),
    "partial": functools.partial(adds, y=0.0),
    "method": CallableObject().method,
    "object": CallableObject(),
    "jitted": jax.jit(adds),
    "filter_jit": eqx.filter_jit(adds),
    "checkpointed": jax.checkpoint(adds),
    "custom_jvp": custom,
    "custom_vjp": custom_back,
}


@pytest.mark.parametrize("kind", CALLABLES)
def test_w1_any_callable_can_be_initialized(kind):
    module = ox.init(CALLABLES[kind])(KEY, 2.0)
    assert list(module.variables()) == ["w"]
    assert module(2.0) == 3 and jax.jit(ox.call)(module, 2.0) == 3
    assert module.replace(w=jnp.array(5.0))(2.0) == 7


def test_w1_a_module_is_its_own_initialization():
    module = ox.init(dense)(KEY, X)
    assert ox.init(module)(KEY, X) is module and ox.init(module, name="n")(KEY, X).name == "n"


@pytest.mark.parametrize("value", [3, "text", None, jnp.ones(2)], ids=repr)
def test_what_is_not_callable_is_refused(value):
    with pytest.raises(TypeError, match="cannot initialize"):
        ox.init(value)(KEY, X)


def test_w2_variables_are_kept_without_init_key():
    module = ox.init(lambda x: x * ox.variable(2.0, name="w"))(KEY, 1.0)
    assert module.w == 2 and module.replace(w=jnp.array(3.0))(1.0) == 3


def test_w3_python_branches_see_values_and_init_runs_the_body_once():
    runs = []

    def branches(x):
        runs.append(x)
        n = ox.variable(0, name="n")
        ox.assign(n + 1, name="n")
        return "even" if n % 2 == 0 and x > 0 else "odd"

    module = ox.init(branches)(KEY, 1.0)
    assert len(runs) == 1
    y, module = ox.call_and_update(module, 1.0)
    assert y == "even" and module(1.0) == "odd" and module(-1.0) == "odd" and len(runs) == 4


def test_shapes_may_vary_between_calls():
    module = ox.init(dense)(KEY, X)
    assert module(jnp.ones((5, 3))).shape == (5, 2)


def test_w4_a_call_may_not_depend_on_init_key():
    def noisy(x, init_key=None):
        return x + ox.variable(0.0, name="w") + jax.random.normal(init_key)

    def assigning(x, init_key=None):
        ox.variable(0.0, name="w")
        return ox.assign(jax.random.normal(init_key), name="w") * 0 + x

    for function in (noisy, assigning):
        with pytest.raises(ValueError, match="`init_key` is used for more than the first values"):
            ox.init(function)(KEY, 1.0)(1.0)
    assert ox.init(dense)(KEY, X)(X).shape == (2,)


def test_w4_an_init_key_given_at_a_call_is_used():
    def noisy(x, init_key=None):
        return x + ox.variable(0.0, name="w") + jax.random.normal(init_key)

    module = ox.init(noisy)(KEY, 1.0)
    one, other = (module(1.0, init_key=jax.random.key(i)) for i in (1, 2))
    assert one != other


def test_w5_keywords_are_read_at_every_call():
    module = ox.init(counting)(KEY, 1.0, step=2)
    assert module.update(1.0, step=5).n == 5 and module.update(1.0).n == 1
    with pytest.raises(TypeError, match="unheard"):
        module(1.0, unheard=1)


def test_w6_wrong_arity_is_the_functions_own_error():
    module = ox.init(dense)(KEY, X)
    with pytest.raises(TypeError, match=r"dense\(\) .*argument"):
        module()
    with pytest.raises(TypeError, match=r"dense\(\)"):
        module(X, None, X)


def test_w6_a_variable_keeps_its_structure():
    def grows(x, deep=False):
        return ox.variable([1.0, 2.0] if deep else 1.0, name="w")

    module = ox.init(grows)(KEY, 1.0)
    with pytest.raises(ValueError, match=r"'w'.*structure"):
        module(1.0, deep=True)
    assert module(1.0) == 1


@pytest.mark.parametrize(("shape", "dtype"), [((3,), jnp.float32), ((2,), jnp.int32)])
def test_w6_a_variable_keeps_its_shape_and_dtype(shape, dtype):
    def changes(x, shape=(2,), dtype=jnp.float32):
        return ox.variable(jnp.zeros(shape, dtype), name="w")

    module = ox.init(changes)(KEY, 1.0)
    with pytest.raises(ValueError, match=r"'w'.*float32\[2\]"):
        module(1.0, shape=shape, dtype=dtype)


@pytest.mark.parametrize("again", [(True, False), (False, True)])
def test_a_variable_that_was_not_declared(again):
    def sometimes(x, first=True):
        return ox.variable(1.0, name="a") if first else ox.variable(1.0, name="b")

    module = ox.init(sometimes)(KEY, 1.0, first=again[0])
    name, other = ("b", "a") if again[0] else ("a", "b")
    with pytest.raises(ValueError, match=f"'{name}' was not declared.*declared: {other}"):
        module(1.0, first=again[1])


def test_variable_and_assign_are_the_identity_outside():
    value = {"a": jnp.ones(2)}
    assert ox.variable(value, name="w") is value and ox.assign(value, name="w") is value


def test_variable_and_assign_return_the_current_value_and_take_pytrees():
    def keeps(x):
        state = ox.variable({"a": x, "b": (x, None)}, name="s")
        new = ox.assign({"a": 2 * state["a"], "b": (x, None)}, name="s")
        again = ox.variable({"a": x, "b": (x, None)}, name="other")
        return new["a"], again["a"]

    module = ox.init(keeps)(KEY, 1.0)
    (new, _), module = ox.call_and_update(module, 3.0)
    assert new == 2 and module.s["a"] == 2 and module.s["b"][0] == 3 and module.other["a"] == 1


def test_a_read_after_an_assign_sees_it_and_the_last_assign_wins():
    def twice(x):
        ox.variable(0.0, name="n")
        return ox.assign(x, name="n") + ox.assign(x + 1, name="n")

    y, module = ox.call_and_update(ox.init(twice)(KEY, 1.0), 5.0)
    assert (float(y), float(module.n)) == (11, 6)


def test_w14_a_missing_attribute_is_an_error():
    module = ox.init(dense)(KEY, X)
    with pytest.raises(AttributeError, match=r"`dense` has no variable 'v' \(it has: w\)"):
        module.v  # noqa: B018
    module.variables()["w"] = None
    assert module.w is not None
    with pytest.raises(TypeError, match="no variable 'v'"):
        module.replace(v=1.0)


def test_w18_modules_of_different_functions_do_not_share_a_program():
    def plus(x):
        return x + ox.variable(2.0, name="w")

    def times(x):
        return x * ox.variable(2.0, name="w")

    one, other = ox.init(plus)(KEY, 3.0), ox.init(times)(KEY, 3.0)
    assert jax.tree.structure(one) != jax.tree.structure(other)
    assert [float(jax.jit(ox.call)(m, 3.0)) for m in (one, other, one)] == [5, 6, 5]
