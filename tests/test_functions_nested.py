"""Functions in functions, modules in functions, and what an error leaves behind (S10)."""

import functools

import jax
import jax.numpy as jnp
import pytest

import oryxstate as ox

KEY = jax.random.key(0)


class Counter(ox.Module):
    count: jax.Array = ox.state(default_factory=lambda: jnp.zeros((), int))

    def call(self, x):
        self.assign(count=self.count + 1)
        return x * self.count.astype(float)


def counting(x):
    n = ox.variable(0, name="n")
    ox.assign(n + 1, name="n")
    return x + 1


def nested(x, init_key=None):
    return ox.init(counting, name="f")(init_key, x)(x)


def merged(x, init_key=None):
    return ox.init(counting)(init_key, x)(x)


def works_again():
    """JAX and the library are as they were before an error."""
    out = jnp.ones(2) + 1
    assert isinstance(out, jax.Array) and not isinstance(out, jax.core.Tracer)
    assert out.tolist() == [2, 2] and jax.jit(lambda x: x + 1)(1) == 2
    assert ox.variable(3, name="w") == 3
    assert ox.init(counting)(KEY, 1.0).update(1.0).n == 1
    assert ox.update(Counter(), 1.0).count == 1


def raises(kind, match, make):
    with pytest.raises(kind, match=match):
        make()
    works_again()


def test_a_named_nested_init_is_a_nested_module():
    module = ox.init(nested)(KEY, 1.0)
    assert list(module.variables()) == ["f"] and isinstance(module.f, ox.FunctionModule)
    y, new = jax.jit(ox.call_and_update)(module, 1.0)
    assert (float(y), int(new.f.n), int(module.f.n)) == (2, 1, 0)


def test_an_unnamed_nested_init_merges_its_variables():
    module = ox.init(merged)(KEY, 1.0)
    assert list(module.variables()) == ["n"] and module.update(1.0).n == 1


def test_two_unnamed_children_with_one_variable_name():
    def both(x, init_key=None):
        return merged(x, init_key) + merged(x, init_key)

    raises(ValueError, r"'n' in one function.*`ox.init\(f, name=", lambda: ox.init(both)(KEY, 1.0))


def test_two_children_of_one_name():
    def both(x, init_key=None):
        return nested(x, init_key) + nested(x, init_key)

    raises(ValueError, "'f' in one function", lambda: ox.init(both)(KEY, 1.0))


def test_a_duplicate_variable():
    def both(x):
        return ox.variable(1.0, name="w") + ox.variable(2.0, name="w")

    raises(ValueError, "'w' in one function.*another name", lambda: ox.init(both)(KEY, 1.0))


@pytest.mark.parametrize("depth", [2, 4])
def test_deep_nesting(depth):
    def level(i, x, init_key=None):
        if i == 0:
            return counting(x)
        return ox.init(functools.partial(level, i - 1), name="f")(init_key, x)(x)

    module = ox.init(functools.partial(level, depth))(KEY, 1.0).update(1.0).update(1.0)
    for _ in range(depth):
        module = module.f
    assert module.n == 2


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_w16_a_shared_module_called_twice_advances_twice(transform):
    def twice(x, init_key=None):
        f = ox.init(counting, name="f")(init_key, x)
        return f(f(x))

    module = transform(ox.update)(ox.init(twice)(KEY, 1.0), 1.0)
    assert module.f.n == 2 and transform(ox.update)(module, 1.0).f.n == 4


def test_w16_in_a_loop_it_advances_every_time():
    def loop(x, init_key=None):
        f = ox.init(counting, name="f")(init_key, x)
        return jax.lax.fori_loop(0, 5, lambda _, h: f(h), x)

    module = ox.init(loop)(KEY, 1.0)
    assert ox.update(module, 1.0).f.n == 5 and module.f.n == 0


def test_a_module_declared_as_a_variable_is_live():
    def uses(x):
        counter = ox.variable(Counter(), name="counter")
        return counter(x) + counter(x)

    y, module = ox.call_and_update(ox.init(uses)(KEY, 1.0), 1.0)
    assert (float(y), int(module.counter.count)) == (3, 2)


def test_w17_a_stateful_module_that_is_closed_over_is_an_error():
    """It was silently lost in a function without `init_key`."""
    counter = Counter()
    texts = "Counter writes `count`.*not part of the model.*call_and_update"
    raises(ox.EffectError, texts, lambda: ox.init(lambda x: counter(x))(KEY, 1.0))
    function_module = ox.init(counting)(KEY, 1.0)
    outer = ox.init(lambda x: x + ox.variable(1.0, name="w"))(KEY, 1.0)
    assert outer(1.0) == 2
    raises(ox.EffectError, "not part", lambda: ox.init(lambda x: function_module(x))(KEY, 1.0))


def test_w17_a_closed_over_module_may_be_called_explicitly():
    counter = Counter()

    def explicit(x):
        y, new = counter.call_and_update(x)
        return y, new.count

    assert ox.init(explicit)(KEY, 1.0)(1.0)[1] == 1 and counter.count == 0


@pytest.mark.parametrize(
    "activation", [jax.nn.relu, jax.nn.silu, jax.nn.softmax, jax.jit(jnp.tanh)]
)
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_w19_jax_activations_work_inside_functions(activation, transform):
    def layer(x, init_key=None):
        return activation(x * ox.variable(jax.random.normal(init_key, (2,)), name="w"))

    module = ox.init(layer)(KEY, jnp.ones(2))
    x = jnp.array([-1.0, 2.0])
    assert jnp.allclose(transform(ox.call)(module, x), activation(x * module.w), atol=1e-6)
    gradient = transform(ox.grad(lambda m: m(x).sum()))(module)
    expected = jax.grad(lambda w: activation(x * w).sum())(module.w)
    assert jnp.allclose(gradient.w, expected, atol=1e-6)


def test_w11_an_undeclared_assign_is_an_error_at_init():
    def assigns(x):
        return ox.assign(x, name="z")

    text = "No variable declared for assign: z"
    raises(ValueError, text, lambda: ox.init(assigns)(KEY, 1.0))


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (jnp.ones(3), r"'w'.*\(3,\).*\(2,\).*reduce or broadcast"),
        (jnp.ones(2, int), r"'w'.*int32.*float32.*astype"),
        ([jnp.ones(2)], "'w'.*another structure"),
    ],
)
def test_w11_an_assigned_value_keeps_structure_shape_and_dtype(value, match):
    def assigns(x):
        ox.variable(jnp.zeros(2), name="w")
        return ox.assign(value, name="w")

    raises(ValueError, match, lambda: ox.init(assigns)(KEY, 1.0))


class Boom(Exception):
    pass


def failing(x, fail=True):
    ox.variable(1.0, name="w")
    if fail:
        raise Boom
    return x


WRAPPERS = {
    "plain": lambda f: f,
    "jit": jax.jit,
    "vmap": lambda f: lambda x: jax.vmap(lambda _: f(x))(jnp.ones(2)),
    "scan": lambda f: lambda x: jax.lax.scan(lambda c, _: (f(c), None), x, None, length=2),
    "grad": jax.grad,
    "cond": lambda f: lambda x: jax.lax.cond(x > 0, f, f, x),
    "nested": lambda f: lambda x: ox.init(f, name="g")(KEY, x),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_w12_an_exception_during_init_leaves_jax_as_it_was(wrapper):
    def raising(x):
        raise Boom

    raises(Boom, None, lambda: ox.init(WRAPPERS[wrapper](raising))(KEY, 1.0))
    raises(Boom, None, lambda: jax.jit(ox.init(WRAPPERS[wrapper](raising)))(KEY, 1.0))


def test_w12_an_exception_during_a_call_leaves_jax_as_it_was():
    module = ox.init(failing)(KEY, 1.0, fail=False)
    raises(Boom, None, lambda: module(1.0))
    raises(Boom, None, lambda: jax.jit(ox.update)(module, 1.0))
    assert module(1.0, fail=False) == 1


def test_a_function_is_initialized_under_jit_and_vmap():
    def weights(x, init_key=None):
        return x + ox.variable(jax.random.normal(init_key, (3,)), name="w")

    single = ox.init(weights)(KEY, jnp.ones(3))
    jitted = jax.jit(ox.init(weights))(KEY, jnp.ones(3))
    assert jnp.allclose(jitted.w, single.w)
    ensemble = jax.vmap(ox.init(weights), (0, None))(jax.random.split(KEY, 4), jnp.ones(3))
    assert ensemble.w.shape == (4, 3) and len(set(ensemble.w[:, 0].tolist())) == 4
    assert jax.vmap(ox.call, (0, None))(ensemble, jnp.ones(3)).shape == (4, 3)


def test_a_function_module_is_a_child_of_a_module():
    class Holds(ox.Module):
        inner: ox.FunctionModule

        def call(self, x):
            return self.inner(self.inner(x))

    new = ox.update(Holds(ox.init(nested)(KEY, 1.0)), 1.0)
    assert new.inner.f.n == 2
