"""The rules by which state passes through JAX's higher-order primitives, one file for each.

Importing this package installs them.

A rule is asked when its primitive is bound. If state is touched inside, it rebuilds the primitive
with JAX's public function, the state as extra inputs and outputs, so that whatever JAX does next
(differentiate, batch, stage, compile) it does to the program one would have written by hand.
"""

from oryxstate import _interception, _jax
from oryxstate._effects.rules import (
    call,
    callback,
    cond,
    custom_derivatives,
    custom_vmap,
    hi_primitive,
    jit,
    linear_solve,
    remat,
    scan,
    shard_map,
    while_loop,
)

_interception.intercept(_jax.JIT, jit.rule)
_interception.intercept(_jax.SCAN, scan.rule)
_interception.intercept(_jax.WHILE, while_loop.rule)
_interception.intercept(_jax.COND, cond.rule)
_interception.intercept(_jax.REMAT, remat.rule)
_interception.intercept(_jax.CUSTOM_JVP, custom_derivatives.jvp_rule)
_interception.intercept(_jax.CUSTOM_VJP, custom_derivatives.vjp_rule)
_interception.intercept(_jax.CUSTOM_VMAP, custom_vmap.rule)
_interception.intercept(_jax.SHARD_MAP, shard_map.rule)
_interception.intercept(_jax.LINEAR_SOLVE, linear_solve.rule)
_interception.intercept(_jax.HI_PRIMITIVE, hi_primitive.rule)
_interception.intercept(_jax.REMAT_OPT, call.rule)
if _jax.EVAL_JAXPR is not None:
    _interception.intercept(_jax.EVAL_JAXPR, call.rule)
for primitive in _jax.CALLBACKS:
    _interception.intercept(primitive, callback.rule_of(primitive))
