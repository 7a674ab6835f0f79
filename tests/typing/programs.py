# pyright: strict, reportUnnecessaryTypeIgnoreComment=true, reportUnknownMemberType=false
"""What a user's program looks like to pyright: nothing of it is unknown but what JAX leaves so."""

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, assert_type

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

import oryxstate as ox
from oryxstate import nn


def array(value: float | jax.Array) -> jax.Array:
    return jnp.asarray(value)


class Norm(ox.Module):
    scale: Float[Array, " c"] = ox.param(converter=array)
    mean: Float[Array, " c"] = ox.state(reduce=jnp.mean)
    count: Int[Array, ""] = ox.state(default_factory=lambda: jnp.array(0))
    momentum: float = ox.static(default=0.99)
    shape: tuple[int, ...] = ox.static(default=(), converter=tuple, kw_only=True)

    def call(self, x: Float[Array, "b c"]) -> Float[Array, "b c"]:
        self.assign(mean=x.mean(0), count=self.count + 1)
        return x * self.scale


class Net(ox.Module):
    layers: list[Norm]
    by_name: dict[str, Norm]

    def call(self, x: Float[Array, "b c"]) -> Float[Array, "b c"]:
        for layer in self.layers:
            x = layer.call(x)
        return self.by_name["last"].call(x)


class Own(ox.Module):
    weight: jax.Array

    def __init__(self, size: int):
        self.weight = jnp.ones(size)  # pyright: ignore[reportAttributeAccessIssue]

    def call_and_update(self, x: jax.Array) -> tuple[jax.Array, Self]:
        return x * self.weight, self.replace(weight=x)


M = TypeVar("M", bound=ox.Module)


class Twice(ox.Module, Generic[M]):
    inner: M

    def call(self, x: jax.Array) -> jax.Array:
        return self.inner(self.inner(x))


x = jnp.ones((2, 3))
key = jax.random.key(0)
norm = Norm(1.0, jnp.zeros(3), shape=(1, 2), name="norm")
net = Net([norm], {"last": norm})

# Modules.
assert_type(norm.shape, tuple[int, ...])
assert_type(net.layers[0].call(x), jax.Array)
assert_type(net.by_name["last"].momentum, float)
assert_type(norm.update(x), Norm)
assert_type(norm.call_and_update(x)[1], Norm)
assert_type(Own(3).call_and_update(x), tuple[jax.Array, Own])
assert_type(Twice(norm).inner, Norm)
assert_type(norm.replace(scale=x).mean, jax.Array)
assert_type(norm.variables(), dict[str, Any])
assert_type(norm.assign(mean=x), None)
data, static = norm.flatten()
assert_type(Norm.unflatten(static, data), Norm)

# The five functions of state.
y, new = ox.call_and_update(net, x)
assert_type(new, Net)
assert_type(ox.update(net, x), Net)
ox.call(net, x)
assert_type(ox.call_and_update((norm, norm), x)[1], tuple[Norm, Norm])
assert_type(ox.init(norm)(key, x), Norm)
assert_type(ox.init(nn.Dense.of(4))(key, x), nn.Dense)
assert_type(ox.init(nn.Dense.of(4), name="dense")(key, x).kernel, jax.Array)
ox.spec(net)(ox.ArraySpec((2, 3)))


# Functions.
def counting(x: jax.Array, init_key: jax.Array | None = None) -> jax.Array:
    n = ox.variable(jnp.array(0), name="n")
    assert_type(n, Any)
    ox.assign(n + 1, name="n")
    return x


function = ox.init(counting)(key, x)
assert_type(function, Any)  # its attributes are the variables that it declared


# Gradients.
def loss(model: Net, x: jax.Array) -> tuple[jax.Array, Net]:
    y, model = ox.call_and_update(model, x)
    return jnp.sum(y), model


def plain(model: Net, x: jax.Array) -> jax.Array:
    return loss(model, x)[0]


(value, updated), gradient = ox.value_and_grad(loss, has_aux=True)(net, x)
assert_type(value, jax.Array)
assert_type(updated, Net)
assert_type(gradient, Net)
assert_type(ox.value_and_grad(plain)(net, x), tuple[jax.Array, Net])
assert_type(ox.grad(plain)(net, x), Net)
assert_type(ox.grad(loss, has_aux=True)(net, x), tuple[Net, Net])
params, rest = ox.partition(net)
assert_type(ox.partition(net, "encoder")[0], Net)
assert_type(ox.value_and_grad(plain, wrt=~ox.select.path("layers"))(net, x), tuple[jax.Array, Net])
assert_type(net.at["layers"].set(0.0), Net)
assert_type(net.at[ox.select.params - Net].cast("bfloat16"), Net)
assert_type(ox.select.state.mask(net), Net)
assert_type(params, Net)
assert_type(ox.merge(params, rest), Net)

# Shapes and leaves.
assert_type(ox.named_leaves(net), dict[str, Any])
assert_type(ox.ArraySpec((2, 3), "int32").shape, tuple[int, ...])
assert_type(ox.ArraySpec(x).ndim, int)
assert_type([n + 1 for n in ox.Shape(3).shape], list[int])
ox.make_array_spec({"x": x})

# Checks of annotations.
ox.check_annotations(False)
with ox.check_annotations() as nothing:
    assert_type(nothing, None)
try:
    net.call(x)
except (ox.AnnotationError, ox.EffectError) as error:
    assert_type(error.args, tuple[Any, ...])

# Layers.
template = nn.Dense.of(4) >> nn.BatchNorm.of() >> jax.nn.relu >> nn.Dropout.of(0.5)
model = ox.init(template)(key, x)
activation: Callable[[jax.Array], jax.Array] = jax.nn.relu
assert_type(nn.MLP.of((4, 4)).init(key, x), nn.MLP)
assert_type(nn.Conv.of(4, 3).init(key, x).strides, int | tuple[int, ...])
assert_type(nn.Dense.of(4).init(key, x).params, dict[str, Any])
