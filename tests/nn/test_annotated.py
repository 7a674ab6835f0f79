"""Annotations of every layer of the catalogue, checked on traced and on real arrays."""

import jax
import jax.numpy as jnp
import pytest
from catalogue import CATALOGUE

import oryxstate as ox
from oryxstate._module._takes import taken_inside

KEY = jax.random.key(0)


def array(spec, lead=()):
    return jnp.zeros(lead + spec.shape, spec.dtype)


@pytest.mark.parametrize("training", [False, True], ids=["evaluated", "training"])
@pytest.mark.parametrize("name", CATALOGUE)
def test_a_layer_fits_its_annotations(name, training):
    template, specs, batched = CATALOGUE[name]

    def program(key, *inputs):
        model = ox.init(template)(key, *specs)
        given = {"training": training, "rng": key}
        given = {k: v for k, v in given.items() if k in taken_inside(model)}

        def run(model, *xs):
            return ox.call_and_update(model, *xs, **given)

        if not (batched and training):
            return run(model, *inputs)
        return jax.vmap(run, (None, *[0] * len(inputs)), (0, None))(model, *inputs)

    inputs = [array(spec, (3,) if batched and training else ()) for spec in specs]
    with ox.check_annotations():
        y, model = jax.eval_shape(program, KEY, *inputs)
    assert jax.tree.leaves((y, model))
