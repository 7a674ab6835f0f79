"""What is learned, and gradients of it (S9)."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from strategies import Node, assert_same, modules

import oryxstate as ox

BOTH = pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jitted"])


class Layer(ox.Module):
    """With integers and a random key among params and state."""

    kernel: jax.Array = ox.param()
    table: jax.Array = ox.param()
    mean: jax.Array = ox.state()
    count: jax.Array = ox.state()
    key: jax.Array = ox.state()
    plain: jax.Array

    def call(self, x):
        key, new = jax.random.split(self.key)
        noise = jax.random.normal(key, ())
        y = x * self.kernel[self.table].sum() + self.plain + 0.0 * noise + self.mean
        self.assign(mean=0.5 * self.mean + 0.5 * y, count=self.count + 1, key=new)
        return y


def layer():
    return Layer(
        kernel=jnp.array([2.0, 3.0]),
        table=jnp.array([0, 1, 1]),
        mean=jnp.array(1.0),
        count=jnp.array(0),
        key=jax.random.key(0),
        plain=jnp.array(4.0),
    )


def test_partition_takes_floating_params_and_plain_arrays():
    params, rest = ox.partition({"a": [layer()], "plain": jnp.ones(2), "int": jnp.array(1)})
    assert list(ox.named_leaves(params)) == ["['a'][0].kernel", "['a'][0].plain", "['plain']"]
    names = ["['a'][0].table", "['a'][0].mean", "['a'][0].count", "['a'][0].key", "['int']"]
    assert list(ox.named_leaves(rest)) == names
    assert type(params["a"][0]) is Layer


@given(modules)
def test_merge_is_the_inverse_of_partition(module):
    params, rest = ox.partition(module)
    assert_same(ox.merge(params, rest), module)
    assert all(jnp.issubdtype(p.dtype, jnp.inexact) for p in jax.tree.leaves(params))
    both = len(jax.tree.leaves(params)) + len(jax.tree.leaves(rest))
    assert both == len(jax.tree.leaves(module))


@given(modules)
def test_state_is_never_a_param(module):
    def check(params, module):
        for field in module.STATE:
            assert jax.tree.leaves(getattr(params, field)) == []
        for field in module.CHILD:
            pairs = (
                jax.tree.leaves(getattr(m, field), is_leaf=lambda x: isinstance(x, Node))
                for m in (params, module)
            )
            nodes = ([x for x in leaves if isinstance(x, Node)] for leaves in pairs)
            for child_params, child in zip(*nodes, strict=True):
                check(child_params, child)

    check(ox.partition(module)[0], module)


@BOTH
def test_value_and_grad_with_integers_and_keys_in_the_model(transform):
    def loss(model, x):
        return ox.call_and_update(model, x)

    (value, new), gradient = transform(ox.value_and_grad(loss, has_aux=True))(layer(), 2.0)
    assert value == 2 * 8 + 4 + 1
    assert gradient.kernel.tolist() == [2, 4] and gradient.plain == 1
    assert (gradient.table, gradient.mean, gradient.count, gradient.key) == (None,) * 4
    assert new.count == 1 and new.mean == 11 and type(gradient) is Layer


@BOTH
def test_the_four_forms_agree(transform):
    def loss(model, x, scale=1.0):
        return scale * model(x)

    value, gradient = transform(ox.value_and_grad(loss))(layer(), 2.0, scale=3.0)
    assert value == 63 and gradient.kernel.tolist() == [6, 12]
    assert_same(transform(ox.grad(loss))(layer(), 2.0, scale=3.0), gradient)
    with_aux = ox.grad(lambda m, x: (3 * m(x), "aux"), has_aux=True)
    gradient_again, aux = with_aux(layer(), 2.0)
    assert aux == "aux" and gradient_again.kernel.tolist() == [6, 12]


@BOTH
def test_state_that_enters_has_its_gradient(transform):
    @transform
    def gradient(mean, model):
        return jax.grad(lambda mean: ox.update(model.replace(mean=mean), 2.0).mean)(mean)

    # The new mean is 0.5 * mean + 0.5 * y, and y is the mean and what does not depend on it.
    assert gradient(jnp.array(1.0), layer()) == 1

    def through_filter(model):
        return eqx.filter_grad(lambda m: ox.update(m, 2.0).mean)(model)

    assert transform(through_filter)(layer()).mean == 1


@BOTH
def test_state_is_left_out_of_what_is_learned(transform):
    assert transform(ox.grad(lambda m: ox.update(m, 2.0).mean))(layer()).mean is None


class Rnn(ox.Module):
    weight: jax.Array = ox.param()
    hidden: jax.Array = ox.state()

    def call(self, xs):
        for x in xs:
            self.assign(hidden=self.weight * self.hidden + x)
        return self.hidden


class ScannedRnn(Rnn):
    def call(self, xs):
        def step(carry, x):
            self.assign(hidden=self.weight * self.hidden + x)
            return carry, None

        jax.lax.scan(step, 0, xs)
        return self.hidden


class Twice(ox.Module):
    inner: Rnn

    def call(self, xs):
        self.inner(xs[:1])
        return self.inner(xs[1:])


@BOTH
@pytest.mark.parametrize("make", [Rnn, ScannedRnn, lambda w, h: Twice(Rnn(w, h))])
def test_state_written_and_read_within_a_call_is_not_stopped(make, transform):
    xs = jnp.array([1.0, 2.0, 3.0])

    def by_hand(weight):
        hidden = 5.0  # a constant
        for x in xs:
            hidden = weight * hidden + x
        return hidden

    model = make(jnp.array(2.0), jnp.array(5.0))
    value, gradient = transform(ox.value_and_grad(lambda m: m(xs)))(model)
    expected = jax.value_and_grad(by_hand)(jnp.array(2.0))
    weight = jax.tree.leaves(gradient)
    assert len(weight) == 1
    np.testing.assert_allclose((value, weight[0]), expected, rtol=1e-6)


@BOTH
def test_the_model_that_comes_out_carries_its_own_gradient(transform):
    def loss(model, x):
        _, new = ox.call_and_update(model, x)
        return new.mean  # 0.5 * mean + 0.5 * y, y linear in kernel

    assert transform(ox.grad(loss))(layer(), 2.0).kernel.tolist() == [1, 2]


def test_a_container_and_an_equinox_model_have_gradients():
    models = [layer(), layer()]
    gradient = ox.grad(lambda m: ox.call(m, 1.0))(models)
    assert gradient[1].plain == 1 and gradient[0].plain == 8 and gradient[0].key is None
    linear = eqx.nn.Linear(2, 1, key=jax.random.key(0))
    gradient = ox.grad(lambda m: m(jnp.ones(2)).sum())(linear)
    assert gradient.weight.tolist() == [[1, 1]]


class Net(ox.Module):
    layers: list
    mlp: eqx.nn.MLP

    def call(self, x):
        for each in self.layers:
            x = each(x)
        return self.mlp(x[None])[0]


def test_optax_updates_whole_models():
    model = Net([layer()], eqx.nn.MLP(1, 1, 4, 1, key=jax.random.key(1)))
    optimizer = optax.adam(1e-2)
    state = optimizer.init(ox.partition(model)[0])

    def loss(model, x):
        y, model = ox.call_and_update(model, x)
        return (y - 1.0) ** 2, model

    @jax.jit
    def step(model, state, x):
        (value, model), gradient = ox.value_and_grad(loss, has_aux=True)(model, x)
        params, rest = ox.partition(model)
        updates, state = optimizer.update(gradient, state, params)
        return ox.merge(optax.apply_updates(params, updates), rest), state, value

    structure, losses = jax.tree.structure(model), []
    for _ in range(3):
        with jax.numpy_dtype_promotion("standard"):  # optax mixes integers and floats
            model, state, value = step(model, state, 0.5)
        losses.append(float(value))
    assert losses[0] > losses[1] > losses[2]
    assert jax.tree.structure(model) == structure and model.layers[0].count == 3
    assert model.layers[0].table.tolist() == [0, 1, 1]
