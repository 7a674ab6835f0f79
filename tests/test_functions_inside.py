"""Functions that declare variables inside transformations (S10)."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.custom_batching import custom_vmap
from jax.sharding import Mesh, PartitionSpec

import oryxstate as ox

KEY = jax.random.key(0)
X = jnp.float32(2)


def scaled(x):
    """Counts its calls, and multiplies with a parameter."""
    count = ox.variable(jnp.int32(0), name="count")
    ox.assign(count + 1, name="count")
    return x * ox.variable(jnp.float32(3), name="w")


def ruled(x):
    run = jax.custom_jvp(scaled)
    run.defjvp(lambda xs, dots: (scaled(*xs), 3 * dots[0]))
    return run(x)


def with_vmap_rule(x):
    run = custom_vmap(scaled)
    run.def_vmap(lambda size, batched, x: (jax.vmap(scaled)(x), True))
    return run(x)


def sharded(x):
    mesh, whole = Mesh(jax.devices()[:1], ("d",)), PartitionSpec()
    return jax.shard_map(scaled, mesh=mesh, in_specs=whole, out_specs=whole)(x)


ALLOWED = {
    "jit": jax.jit(scaled),
    "jit of jit": jax.jit(lambda x: jax.jit(scaled)(x)),
    "checkpoint": jax.checkpoint(scaled),
    "custom_jvp": ruled,
    "vmap": lambda x: jax.vmap(lambda _: scaled(x))(jnp.zeros(2))[0],
    "grad": lambda x: jax.grad(scaled)(x) * x,
}
REFUSED = {
    "lax.scan": lambda x: lax.scan(lambda c, _: (scaled(c), None), x, None, length=2)[0],
    "lax.cond": lambda x: lax.cond(x > 0, scaled, scaled, x),
    "lax.while_loop": lambda x: lax.while_loop(lambda c: c < 9, scaled, x),
    "jax.shard_map": sharded,
    "custom_vmap": with_vmap_rule,
    "lax.custom_linear_solve": lambda x: lax.custom_linear_solve(
        lambda y: y / 3, x, lambda _, b: scaled(b), symmetric=True
    ),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_declared_once_and_found_again(name):
    module = ox.init(ALLOWED[name])(KEY, X)
    assert int(module.count) == 0 and list(module.params) == ["w"]
    for transform in (lambda f: f, jax.jit):
        y, new = transform(ox.call_and_update)(module, X)
        assert (float(y), int(new.count)) == (6, 1)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_where_it_would_be_declared_more_than_once(name):
    with pytest.raises(ValueError) as error:
        ox.init(REFUSED[name])(KEY, X)
    text = f"variable 'count' is declared inside `{name}`, where it would be declared once"
    assert str(error.value).startswith(text) and "before it" in str(error.value)
