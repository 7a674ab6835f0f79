"""What is frozen stays as it is, and what is not decayed neither: recipes, trained and compared."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest
from strategies import assert_same

import oryxstate as ox
from oryxstate import nn, select


def make():
    """A model with norms and biases inside a stack, and state."""
    block = nn.Residual.of(nn.LayerNorm.of() >> nn.Dense.of(4))
    chain = nn.Dense.of(4) >> nn.Repeat.of(block, 3) >> nn.BatchNorm.of() >> nn.Dense.of(2)
    model = ox.init(chain)(jax.random.key(0), jnp.ones(3))
    # No parameter is zero, or its decay would not show.
    return model.at[select.params].apply(lambda x: x + 0.5)


def loss(model, xs, ys):
    predictions, model = ox.batch_call_and_update(model, xs, training=True)
    return jnp.mean((predictions - ys) ** 2), model


XS = jax.random.normal(jax.random.key(1), (8, 3))
YS = jax.random.normal(jax.random.key(2), (8, 2))


def train(model, optimizer, wrt=None, steps=2, loss=loss):
    """The trained model, and the state of the optimizer as it was first."""
    first = state = optimizer.init(ox.partition(model, wrt)[0])

    @jax.jit
    def step(model, state):
        (_, model), gradient = ox.value_and_grad(loss, wrt=wrt, has_aux=True)(model, XS, YS)
        updates, state = optimizer.update(gradient, state, ox.partition(model, wrt)[0])
        return eqx.apply_updates(model, updates), state

    with jax.numpy_dtype_promotion("standard"):
        for _ in range(steps):
            model, state = step(model, state)
    return model, first


def moved(before, after):
    """The paths of what training changed."""
    return {difference.path for difference in ox.diff(before, after)}


def paths(selection):
    return set(selection.paths(make()))


FROZEN = [
    select.path("layers[0]"),
    select.path("layers[1].**.kernel"),
    select.field("bias"),
    select.instances(nn.LayerNorm),
    select.path("layers[:3]"),
    select.path("layers[1]") - nn.LayerNorm,
]


@pytest.mark.parametrize("frozen", FROZEN, ids=repr)
def test_what_is_left_out_of_wrt_is_frozen_and_has_no_moments(frozen):
    optimizer = optax.adamw(0.1, weight_decay=0.1)
    model, first = train(make(), optimizer, wrt=~frozen)
    assert moved(make(), model) == paths((select.params - frozen) | select.state)
    held = select.params.count(ox.partition(make(), ~frozen)[0])
    assert sum(x.size for x in jax.tree.leaves(first[0].mu)) == held


@pytest.mark.parametrize("frozen", FROZEN, ids=repr)
def test_labels_freeze_too(frozen):
    labels = select.labels("train", freeze=select.params & frozen)
    optimizers = {"train": optax.adamw(0.1), "freeze": optax.set_to_zero()}
    model, _ = train(make(), optax.multi_transform(optimizers, labels))
    assert moved(make(), model) == paths((select.params - frozen) | select.state)


def test_the_recipe_of_optax_masked_alone_does_not_freeze():
    frozen = select.path("layers[0]")
    model, _ = train(make(), optax.masked(optax.adam(0.1), (select.params - frozen).mask))
    assert "layers[0].kernel" in moved(make(), model)  # by the raw gradient


def no_gradient(model, xs, ys):
    _, model = ox.batch_call_and_update(model, xs, training=True)
    return jnp.zeros(()), model


@pytest.mark.parametrize(
    "decayed",
    [
        select.field("kernel"),
        select.params - select.field("bias") - nn.LayerNorm - nn.BatchNorm,
        select.path("**.kernel"),
    ],
    ids=repr,
)
def test_weight_decay_leaves_norms_and_biases_alone_inside_stacks_too(decayed):
    optimizer = optax.adamw(0.1, weight_decay=0.5, mask=decayed.mask)
    model, _ = train(make(), optimizer, steps=1, loss=no_gradient)
    kernels = {
        "layers[0].kernel",
        "layers[1].layers.body.layers[1].kernel",
        "layers[3].kernel",
    }
    assert moved(make(), model) == kernels | paths(select.state)
    expected = 0.95 * make().layers[1].layers.body.layers[1].kernel
    assert jnp.allclose(model.layers[1].layers.body.layers[1].kernel, expected, rtol=1e-6)


def test_the_recipe_by_number_of_axes_decays_norms_and_biases_of_stacks():
    def mask(params):
        return jax.tree.map(lambda p: p.ndim > 1, params)

    optimizer = optax.adamw(0.1, weight_decay=0.5, mask=mask)
    model, _ = train(make(), optimizer, steps=1, loss=no_gradient)
    assert "layers[1].layers.body.layers[0].scale" in moved(make(), model)


def test_an_ensemble_is_decayed_by_field():
    one = nn.Dense.of(4) >> nn.LayerNorm.of() >> nn.Dense.of(2)
    members = jax.vmap(lambda key: ox.init(one)(key, jnp.ones(3)))(
        jax.random.split(jax.random.key(0), 5)
    )
    members = members.at[select.params].apply(lambda x: x + 0.5)

    def zero(members, xs, ys):
        return 0.0 * jnp.sum(members.layers[0].bias), members

    optimizer = optax.adamw(0.1, mask=select.field("kernel").mask, weight_decay=0.5)
    new, _ = train(members, optimizer, steps=1, loss=zero)
    assert moved(members, new) == {"layers[0].kernel", "layers[2].kernel"}
    assert new.layers[0].kernel.shape == (5, 3, 4)


def test_groups_learn_at_rates_of_their_own():
    rates = {"slow": optax.sgd(0.001), "fast": optax.sgd(0.1), "never": optax.set_to_zero()}
    labels = select.labels("fast", slow="layers[0]", never=select.path("layers[1]"))
    model, _ = train(make(), optax.multi_transform(rates, labels), steps=1)
    gradient = ox.grad(loss, has_aux=True)(make(), XS, YS)[0]
    for layer, rate in ((0, 0.001), (1, 0.0), (3, 0.1)):
        before, after = (jax.tree.leaves(m.layers[layer]) for m in (make(), model))
        for old, new, slope in zip(
            before, after, jax.tree.leaves(gradient.layers[layer]), strict=True
        ):
            assert jnp.allclose(new, old - rate * slope, atol=1e-5)


# `wrt` --------------------------------------------------------------------------------------------


def test_partition_and_gradients_agree_on_wrt_and_cost_nothing_else():
    wrt = select.path("layers[3]")
    gradient, _ = ox.grad(loss, wrt=wrt, has_aux=True)(make(), XS, YS)
    params, rest = ox.partition(make(), wrt)
    assert jax.tree.structure(gradient) == jax.tree.structure(params)
    assert_same(ox.merge(params, rest), make())
    whole, _ = ox.grad(loss, has_aux=True)(make(), XS, YS)
    assert jnp.allclose(gradient.layers[3].kernel, whole.layers[3].kernel)
    (value, new), again = ox.value_and_grad(loss, wrt="layers[3]", has_aux=True)(make(), XS, YS)
    assert value == loss(make(), XS, YS)[0] and new.layers[2].mean.any()
    assert_same(again, gradient)
    equations = [
        str(jax.make_jaxpr(ox.grad(loss, wrt=each, has_aux=True))(make(), XS, YS)).count(
            "dot_general"
        )
        for each in (None, "layers[3]")
    ]
    assert equations[0] > equations[1]  # no backward pass through what is frozen


def test_wrt_learns_state_only_where_a_kind_is_named():
    def of_mean(model):
        return jnp.sum(model.layers[2].mean ** 2) + jnp.sum(model.layers[2].scale)

    model = make().at["layers[2].mean"].set(3.0)
    assert ox.grad(of_mean, wrt="layers[2]")(model).layers[2].mean is None
    wrt = select.state & "layers[2].mean"
    gradient = ox.grad(of_mean, wrt=wrt)(model)
    assert gradient.layers[2].mean.tolist() == [6] * 4 and gradient.layers[2].scale is None
    both = ox.grad(of_mean, wrt=select.state | select.params)(model).layers[2]
    assert both.mean.tolist() == [6] * 4 and both.scale.tolist() == [1] * 4


def test_wrt_of_nothing_that_can_be_learned_is_an_error():
    tree = {"table": jnp.array([1]), "key": jax.random.key(0), "w": jnp.ones(2)}
    text = r"`wrt` selects nothing that can be learned: 'table' selects only \['table'\], and integ"
    with pytest.raises(ValueError, match=text):
        ox.partition(tree, "table")
    with pytest.raises(ValueError, match="Did you mean 'table'"):
        ox.grad(lambda t: t["w"].sum(), wrt="tabel")(tree)
    assert ox.partition(tree, select.params)[0] == {"table": None, "key": None, "w": tree["w"]}


def test_state_is_reset():
    used = loss(make(), XS, YS)[1]
    assert moved(make(), used) == paths(select.state)
    assert not ox.diff(used.at[select.state].take(make()), make())
