"""The law: each state update happens exactly once, whatever transformations stand around it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import assume, given
from laws import oracle, ours
from laws.programs import BATCHES, Cell, Ensemble, Within, programs

import oryxstate as ox

CELLS = (jnp.array(0.2), jnp.array(-0.4), jnp.array(1.0))
ENSEMBLE = jnp.array([0.1, 0.2, 0.3])
CLOSE = dict(rtol=2e-4, atol=2e-4)


def _nodes(node):
    yield node
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            yield from _nodes(value)


def _writes(node):
    return any(isinstance(n, (Cell, Ensemble)) and n.kind != "read" for n in _nodes(node))


def _may_refuse(node):
    """Whether some `vmap` has a write in it, which may depend on the mapped axis."""
    return any(
        isinstance(n, Within) and n.kind in BATCHES and _writes(n.body) for n in _nodes(node)
    )


def _refused_by_jax(error):
    """Whether JAX has no such derivative: backwards through `while`, forwards by a `custom_vjp`."""
    text = str(error)
    return (
        "Reverse-mode differentiation does not work for lax.while_loop" in text
        or "can't apply forward-mode autodiff (jvp) to a custom_vjp function" in text
    )


def _expected(node, cells, ensemble, x):
    try:
        return oracle.run(node, (cells, ensemble), x)
    except oracle.MappedWriteError:
        return None


def _compare(out, model, expected):
    np.testing.assert_allclose(out, expected[0], **CLOSE)
    for ours_leaf, leaf in zip(
        jax.tree.leaves(ours.state(model)), jax.tree.leaves(expected[1]), strict=True
    ):
        np.testing.assert_allclose(ours_leaf, leaf, **CLOSE)


def check(node):
    """Eager, jitted, and called again with another state and input."""
    jitted = jax.jit(ox.call_and_update)
    for call, shift in (
        (ox.call_and_update, 0.0),
        (jitted, 0.0),
        (jitted, 0.3),
        (ox.call_and_update, 0.3),
    ):
        cells = tuple(c + shift for c in CELLS)
        x = jnp.array(0.7 - 3 * shift)
        model = ours.program(node, cells, ENSEMBLE + shift)
        expected = _expected(node, cells, ENSEMBLE + shift, x)
        try:
            out, new = call(model, x)
        except ox.EffectError:
            assert _may_refuse(node)
            return
        except (TypeError, ValueError) as error:
            assume(not _refused_by_jax(error))
            raise
        assert expected is not None, "a write that depends on the mapped axis was not refused"
        _compare(out, new, expected)
        assert jax.tree.structure(new) == jax.tree.structure(model)


def _ours_or_refusal(function, node, *args):
    """The result, or None if it is refused as it may be."""
    try:
        return function(*args)
    except ox.EffectError:
        assert _may_refuse(node)
        return None
    except (TypeError, ValueError) as error:
        assume(not _refused_by_jax(error))
        raise


@given(programs)
def test_programs(node):
    check(node)


@given(programs)
def test_programs_under_an_outer_derivative(node):
    """The state that a call leaves, and the gradient through what it wrote and read."""
    model, x = ours.program(node, CELLS, ENSEMBLE), jnp.array(0.7)
    state = _expected(node, CELLS, ENSEMBLE, x)

    @jax.jit
    def value_and_grad(model, x):
        return jax.value_and_grad(lambda x: model.call_and_update(x), has_aux=True)(x)

    result = _ours_or_refusal(value_and_grad, node, model, x)
    if result is not None:
        assert state is not None
        (y, new), slope = result
        _compare(y, new, state)
        expected = jax.jvp(
            lambda x: oracle.run(node, jax.lax.stop_gradient((CELLS, ENSEMBLE)), x)[0],
            (x,),
            (jnp.ones_like(x),),
        )[1]
        np.testing.assert_allclose(slope, expected, **CLOSE)


@given(programs)
def test_programs_under_an_outer_vmap(node):
    """Each example has a state of its own."""
    shifts = jnp.array([0.0, 0.4])
    cells = tuple(c + shifts for c in CELLS)
    ensemble = ENSEMBLE[None] + shifts[:, None]
    model, x = ours.program(node, cells, ensemble), 0.7 - shifts
    result = _ours_or_refusal(jax.vmap(ox.call_and_update), node, model, x)
    if result is not None:
        for i in range(2):
            expected = _expected(node, tuple(c[i] for c in cells), ensemble[i], x[i])
            assert expected is not None
            y, new = jax.tree.map(lambda leaf, i=i: leaf[i], result)
            _compare(y, new, expected)


@given(programs)
def test_programs_under_an_outer_scan(node):
    """The model is the carry of a training loop."""
    model, xs = ours.program(node, CELLS, ENSEMBLE), jnp.array([0.7, -0.2])

    def body(model, x):
        y, model = ox.call_and_update(model, x)
        return model, y

    result = _ours_or_refusal(jax.lax.scan, node, body, model, xs)
    if result is not None:
        state = (CELLS, ENSEMBLE)
        outs = []
        for x in xs:
            expected = _expected(node, *state, x)
            assert expected is not None
            state = expected[1]
            outs.append(expected[0])
        _compare(result[1], result[0], (jnp.stack(outs), state))
