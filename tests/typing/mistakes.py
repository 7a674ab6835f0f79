# pyright: strict, reportUnnecessaryTypeIgnoreComment=true, reportUnknownMemberType=false
"""Mistakes in users' programs: pyright finds each by this rule, or the comment is an error."""

from typing import assert_type

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from programs import Net, Norm, key, loss, net, norm, plain, x

import oryxstate as ox
from oryxstate import nn


# Fields.
class Typo(ox.Module):
    scale: Float[Array, " c"] = ox.param(1.0)  # pyright: ignore[reportCallIssue, reportUnknownVariableType]
    mean: jax.Array = ox.state(reduce="mean")  # pyright: ignore[reportArgumentType]
    rate: float = ox.static(converter=3)  # pyright: ignore[reportArgumentType]

    def call(self, x: jax.Array) -> jax.Array:
        self.assing(mean=x)  # pyright: ignore[reportAttributeAccessIssue]
        return self.means  # pyright: ignore[reportUnknownVariableType, reportAttributeAccessIssue]


Norm(1.0)  # pyright: ignore[reportCallIssue]
Norm(1.0, x, None)  # pyright: ignore[reportArgumentType]
Norm("one", x)  # pyright: ignore[reportArgumentType]
Norm(1.0, x, x, 0.9, (1,))  # pyright: ignore[reportCallIssue]
Norm(1.0, x, momentum="most")  # pyright: ignore[reportArgumentType]
Net([x], {})  # pyright: ignore[reportArgumentType]
norm.momentum = 0.5  # pyright: ignore[reportAttributeAccessIssue]

# What calls give back.
y, new = ox.call_and_update(net, x)
new.layer()  # pyright: ignore[reportAttributeAccessIssue]
ox.update(norm, x).call()  # pyright: ignore[reportCallIssue]
net.call("x")  # pyright: ignore[reportArgumentType]
assert_type(ox.update(net, x), Norm)  # pyright: ignore[reportAssertTypeFailure]
ox.init(norm)(key, x).call(1)  # pyright: ignore[reportArgumentType]
ox.init(nn.Dense.of(4))(key, x).kernal()  # pyright: ignore[reportAttributeAccessIssue]
ox.init()  # pyright: ignore[reportCallIssue]

# Gradients.
ox.value_and_grad(plain)(x, x)  # pyright: ignore[reportArgumentType]
ox.value_and_grad(plain)(net)  # pyright: ignore[reportCallIssue]
ox.value_and_grad(loss, True)  # pyright: ignore[reportCallIssue]
ox.grad(plain)(net, x).layer()  # pyright: ignore[reportAttributeAccessIssue]
ox.merge(*ox.partition(norm)).layers()  # pyright: ignore[reportAttributeAccessIssue]

# The rest.
ox.check_annotations("yes")  # pyright: ignore[reportArgumentType]
ox.variable(jnp.array(0), "n")  # pyright: ignore[reportCallIssue]
ox.ArraySpec((2,)).shape = (3,)  # pyright: ignore[reportAttributeAccessIssue]
ox.Modul()  # pyright: ignore[reportAttributeAccessIssue]
