"""Templates: the layers that they become, and the errors where they become none (S12, S13)."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hosts import both, close

import oryxstate as ox
from oryxstate import ArraySpec, nn

KEY = jax.random.key(0)
X = jnp.ones(3)


def double(x):
    return 2 * x


def test_a_template_is_a_frozen_value():
    template = nn.Dense.of(4, use_bias=False)
    assert template == nn.Dense.of(4, use_bias=False) != nn.Dense.of(5)
    assert hash(template) == hash(nn.Dense.of(4, use_bias=False))
    assert pickle.loads(pickle.dumps(template)) == copy.deepcopy(template) == template
    with pytest.raises(dataclasses.FrozenInstanceError):
        template.layer = nn.Dropout


def test_how_templates_print():
    assert repr(nn.Dense.of(4, use_bias=False)) == "Dense.of(4, use_bias=False)"
    assert repr(double >> nn.Dense.of(4) >> jax.nn.relu) == "double >> Dense.of(4) >> relu"
    assert repr(nn.Residual.of(nn.Dense.of(3) >> jnp.tanh)) == "Residual.of(Dense.of(3) >> tanh)"


def test_init_makes_a_layer():
    for dense in (nn.Dense.of(4).init(KEY, X), ox.init(nn.Dense.of(4))(KEY, X)):
        assert isinstance(dense, nn.Dense) and dense.kernel.shape == (3, 4)
        close(dense(X), X @ dense.kernel + dense.bias)
    assert nn.Dense.of(4).init(KEY, ArraySpec(3), name="first").name == "first"
    assert ox.init(nn.Dense.of(4), name="second")(KEY, X).name == "second"


def test_init_needs_no_values():
    made = jax.eval_shape(nn.Dense.of(4).init, KEY, X)
    assert made.kernel.shape == (3, 4)
    for run in both(nn.Dense.of(4).init):
        close(run(KEY, X), nn.Dense.of(4).init(KEY, ArraySpec(3)))


def test_spec_is_that_of_the_output():
    template = nn.Dense.of(4) >> jax.nn.relu >> nn.Dropout.of(0.5) >> nn.Dense.of(2)
    for infer in (template.spec, ox.spec(template), template.init(KEY, X).spec):
        assert infer(X) == infer(ArraySpec(3)) == ArraySpec(2)
        assert infer(ArraySpec((5, 3))) == ArraySpec((5, 2))
    assert nn.FanOut.of(jnp.sin, nn.Dense.of(2)).spec(X) == (ArraySpec(3), ArraySpec(2))


def test_call_initializes_and_calls():
    template = nn.Dense.of(4)
    close(template.call(KEY, X), template.init(KEY, X)(X))


def test_functions_stand_on_either_side():
    dense = nn.Dense.of(4)
    layers = (double >> dense >> jnp.tanh).init(KEY, X).layers
    assert [type(layer) for layer in layers] == [nn.Lambda, nn.Dense, nn.Lambda]
    chain = ((double >> dense) >> (jnp.tanh >> dense)) >> jnp.sum
    assert len(chain.args) == 5, "one list, however it was put together"
    close(chain.init(KEY, X)(X), _run(chain.init(KEY, X).layers, X))


def _run(layers, x):
    for layer in layers:
        x = layer(x)
    return x


def test_parts_may_be_modules_already():
    dense = nn.Dense.of(4).init(KEY, X)
    linear = eqx.nn.Linear(4, 2, key=KEY)
    model = nn.Serial.of(dense, linear, nn.Dense.of(5)).init(KEY, X)
    close(model(X), model.layers[2](linear(dense(X))))
    assert model.layers[0].kernel is dense.kernel


def test_each_part_has_a_key_of_its_own():
    model = (nn.Dense.of(3) >> nn.Dense.of(3) >> (nn.Dense.of(3) >> nn.Dense.of(3))).init(KEY, X)
    kernels = [np.asarray(layer.kernel) for layer in model.layers]
    assert len({kernel.tobytes() for kernel in kernels}) == 4


def test_a_tuple_is_the_inputs_of_the_next():
    """While a chain is made, and when it is called."""
    pair = nn.FanOut.of(jnp.sin, nn.Dense.of(3))
    for template in (
        pair >> jnp.add,
        pair >> nn.Bilinear.of(2),
        pair >> nn.Parallel.of(jnp.cos, jnp.sin),
    ):
        model = template.init(KEY, X)
        want = model.layers[1](*model.layers[0](X))
        close(model(X), want)
        assert template.spec(X) == model.spec(X) == ox.make_array_spec(want)
    single = (nn.FanOut.of(jnp.sin) >> jnp.cos).init(KEY, X)
    close(single(X), jnp.cos(jnp.sin(X)))
    ends = (jnp.sin >> nn.FanOut.of(nn.Dense.of(2))).init(KEY, X)
    assert isinstance(ends(X), tuple) and ends.spec(X) == (ArraySpec(2),)


def test_empty_and_nested():
    close(nn.Serial.of().init(KEY, X)(X), X)
    assert nn.FanOut.of().init(KEY, X)(X) == ()
    inner = nn.Serial.of(nn.Serial.of(nn.Dense.of(2)), nn.Serial.of())
    assert inner.init(KEY, X)(X).shape == (2,)
    with pytest.raises(ValueError, match="Branch needs at least one layer"):
        nn.Branch.of().init(KEY, jnp.int32(0), X)


def test_a_branch_updates_only_the_layer_that_is_taken():
    class Count(nn.Layer):
        n: jax.Array = ox.state()

        @classmethod
        def initialize(cls, init_key, in_spec):
            return nn.LayerParams(state={"n": jnp.zeros((), jnp.int32)})

        def call(self, x):
            self.assign(n=self.n + 1)
            return x

    model = nn.Branch.of(Count.of(), Count.of() >> double).init(KEY, jnp.int32(0), X)
    for run in both(ox.call_and_update):
        y, new = run(model, jnp.int32(1), X)
        close(y, 2 * X)
        assert (int(new.layers[0].n), int(new.layers[1].layers[0].n)) == (0, 1)


# Layers as values ---------------------------------------------------------------------------------


def test_views_and_replace():
    norm = nn.BatchNorm.of(momentum=0.5, use_bias=False).init(KEY, X)
    assert list(norm.params) == ["scale", "bias"] and norm.params["bias"] is None
    assert list(norm.state) == ["mean", "variance"]
    options = {"epsilon": 1e-5, "axis_name": (), "dtype": None, "axis": -1}
    assert norm.info == {"momentum": 0.5, **options}
    new = norm.replace(params={"scale": 2 * X}, state={"mean": X}, info={"momentum": 0.25})
    close((new.scale, new.mean), (2 * X, X))
    assert new.momentum == 0.25 and new.variance is norm.variance
    assert norm.replace(mean=X, name="n").name == "n"
    with pytest.raises(TypeError, match=r"BatchNorm has no field `means`\. Did you mean `mean`"):
        norm.replace(state={"means": X})


def test_new_takes_what_initialize_gives():
    made = nn.Dense.initialize(KEY, ArraySpec(3), 4)
    assert set(made.params) == {"kernel", "bias"} and made.state == {}
    close(nn.Dense.new(made, name="d"), nn.Dense.of(4).init(KEY, X))
    assert nn.Dense.new(made, name="d").name == "d"


def test_layers_are_copied_and_pickled():
    model = (nn.Dense.of(4) >> double >> nn.BatchNorm.of()).init(KEY, X)
    for twin in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        close(twin, model)
        assert jax.tree.structure(twin) == jax.tree.structure(model)


def test_a_layer_without_initialize_is_abstract():
    class Half(nn.Layer):
        def call(self, x):
            return x

    with pytest.raises(TypeError, match=r"abstract.*initialize"):
        Half()


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: nn.Dense.of(), TypeError, "Dense.of: missing a required argument: 'features'"),
        (lambda: nn.Dense.of(2, bias=1), TypeError, "Dense.of: got an unexpected keyword.*'bias'"),
        (lambda: nn.Dense.of(0), ValueError, "`features` must be a positive integer, got 0"),
        (lambda: nn.Dense.of(2.0), ValueError, r"`features` must be a positive integer, got 2\.0"),
        (lambda: nn.Dropout.of(1.0), ValueError, r"Dropout: `rate` must be in \[0, 1\), got 1\.0"),
        (lambda: nn.BatchNorm.of(momentum=1.5), ValueError, r"`momentum` must be in \[0, 1\)"),
        (lambda: nn.Serial.of(nn.Dense), TypeError, "class Dense. Say how.*`Dense.of(...)`"),
        (lambda: nn.Dense.of(2) >> 3, TypeError, "part 1 of Serial is a int, 3. Give a template"),
        (lambda: nn.Repeat.of(nn.Dense.of(2), 0), ValueError, "`count` must be a positive"),
    ],
)
def test_a_wrong_configuration_fails_at_once(make, error, text):
    with pytest.raises(error, match=text.replace("(...)", r"\(\.\.\.\)")):
        make()


CHAIN = nn.Dense.of(4) >> jax.nn.relu >> nn.Parallel.of(nn.Dense.of(2))


@pytest.mark.parametrize(
    ("run", "text"),
    [
        (lambda: nn.Dense.of(2).init(KEY, jnp.float32(1)), "Dense takes [..., in], but got f"),
        (lambda: CHAIN.init(KEY, X), "Parallel at 'layers[2]' takes 1 inputs, but got float32[4]."),
        (lambda: CHAIN.spec(X), "Parallel at 'layers[2]' takes 1 inputs, but got float32[4]."),
        (
            lambda: (double >> nn.Residual.of(nn.Dense.of(2) >> nn.Dense.of(2))).init(KEY, X),
            "Residual at 'layers[1]' takes a body that returns float32[3]",
        ),
        (
            lambda: nn.FanOut.of(nn.Serial.of(double, nn.Reshape.of(2))).spec(X),
            "Reshape at 'layers[0].layers[1]' takes as many elements as fit in [2], but got float",
        ),
        (
            lambda: (nn.Dense.of(4) >> nn.Dense.of(2)).init(KEY, X)(jnp.ones(2)),
            "Dense at 'layers[0]' takes [..., 3], but got float32[2].",
        ),
        (
            lambda: jax.jit((double >> nn.Dense.of(2)).init(KEY, X).spec)(jnp.ones((3, 2))),
            "Dense at 'layers[1]' takes [..., 3], but got float32[3,2].",
        ),
    ],
)
def test_a_wrong_input_says_where_and_what(run, text):
    with pytest.raises(ValueError) as error:
        run()
    assert text in str(error.value)


@pytest.mark.parametrize("shape", [(-1, -1), (2, -2)])
def test_a_shape_that_is_none(shape):
    with pytest.raises(ValueError, match=r"Reshape: lengths must not be negative, but for one -1"):
        nn.Reshape.of(*shape)


@pytest.mark.parametrize("shape, given", [((3, -1), 4), ((0, -1), 4), ((2, 2), 5), ((), 2)])
def test_a_shape_that_does_not_fit(shape, given):
    with pytest.raises(ValueError, match=r"Reshape takes as many elements as fit in \["):
        nn.Reshape.of(*shape).init(KEY, jnp.ones(given))


@pytest.mark.parametrize(
    "make, chain",
    [
        (lambda layer: layer >> jax.nn.relu, "Dense.of(...) >> relu"),
        (lambda layer: jax.nn.relu >> layer, "relu >> Dense.of(...)"),
        (lambda layer: layer >> layer, "Dense.of(...) >> Dense.of(...)"),
    ],
)
def test_layers_that_are_made_do_not_compose(make, chain):
    text = f"Compose before you make: `ox.init({chain})(key, x)`. A chain of layers that are made"
    with pytest.raises(TypeError, match=re.escape(text)):
        make(nn.Dense.of(2).init(KEY, X))


def test_a_template_is_not_called():
    with pytest.raises(
        TypeError, match=r"Dense.of\(4\) is a template.*`model = ox.init\(template\)\(key, x\)`"
    ):
        nn.Dense.of(4)(X)


# Cost ---------------------------------------------------------------------------------------------


def test_a_long_chain_is_traced_once():
    """Each part, however the chain is put together."""
    calls = []

    def counted(x):
        calls.append(x)
        return x

    def traced(depth, nest):
        calls.clear()
        template = nn.Serial.of()
        for _ in range(depth):
            template = nest(template)
        model = template.init(KEY, X)
        at_init = len(calls)
        jax.make_jaxpr(model)(X)
        return at_init / depth, (len(calls) - at_init) / depth

    for nest in (lambda t: t >> counted, lambda t: nn.Serial.of(t, counted)):
        assert traced(10, nest) == traced(100, nest) == (1, 1)


def test_a_repeated_layer_is_one_equation():
    def size(count):
        model = nn.Repeat.of(nn.Residual.of(nn.Dense.of(3)), count, remat=True).init(KEY, X)
        return len(str(jax.make_jaxpr(ox.call_and_update)(model, X)).splitlines())

    assert size(2) == size(24)
