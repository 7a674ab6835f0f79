# pyright: strict, reportUnnecessaryTypeIgnoreComment=true, reportUnknownMemberType=false
"""What pyright knows of templates: their configuration is that of `initialize`."""

from typing import Any, assert_type

import jax
import jax.numpy as jnp

import oryxstate as ox
from oryxstate import nn


class Scale(nn.Layer):
    scale: jax.Array = ox.param()

    @classmethod
    def initialize(cls, init_key: Any, in_spec: Any, first: float, *, power: int = 1) -> Any:
        return nn.LayerParams(params={"scale": jnp.full(in_spec.shape, first**power)})

    def call(self, x: jax.Array) -> jax.Array:
        return x * self.scale


x = jnp.ones(3)
key = jax.random.key(0)
template = Scale.of(2.0, power=2)
assert_type(template, nn.Template[Scale])
assert_type(template.init(key, x), Scale)
assert_type(nn.Dense.of(4, use_bias=False).init(key, x).kernel, jax.Array)
assert_type(nn.Dense.of(4).init(key, x).replace(params={}), nn.Dense)
assert_type(template >> template, nn.Template[nn.Serial])
assert_type(template >> jax.nn.relu >> template, nn.Template[nn.Serial])
assert_type(jax.nn.relu >> template, nn.Template[nn.Serial])
chain = (template >> nn.Dense.of(4)).init(key, x)
assert_type(chain, nn.Serial)
assert_type(ox.init(template >> template)(key, x).layers, tuple[Any, ...])
assert_type(chain[0], Any)
assert_type(chain[1:], nn.Serial)
assert_type(len(chain), int)
assert_type(nn.RNN.of(nn.GRUCell.of(4)).init(key, x).unroll(None, x), tuple[Any, Any])

Scale.of()  # pyright: ignore[reportCallIssue]
Scale.of("big")  # pyright: ignore[reportArgumentType]
Scale.of(2.0, 2)  # pyright: ignore[reportCallIssue]
nn.Dense.of(4, bias=False)  # pyright: ignore[reportCallIssue]
nn.Dense.of(4, use_bias=0.5)  # pyright: ignore[reportArgumentType]
nn.BatchNorm.of(momentum="most")  # pyright: ignore[reportArgumentType]
nn.RNN.of(nn.GRUCell.of(4), stateful="yes")  # pyright: ignore[reportArgumentType]
nn.BatchNorm.of(axis=(0, 1))  # pyright: ignore[reportArgumentType]
template >> 3  # pyright: ignore[reportOperatorIssue, reportUnusedExpression]
chain["dense"]  # pyright: ignore[reportCallIssue, reportArgumentType]
template.layer = Scale  # pyright: ignore[reportAttributeAccessIssue]
