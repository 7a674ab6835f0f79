"""A place belongs to one root call, whatever becomes of a module that stood in it (S4, S5)."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import pytest
from cells import Cell, H, W, X, step
from hosts import Host, both, close
from jax import lax
from jax.extend.core import jaxpr_as_fun
from jaxtyping import Array

import oryxstate as ox

ENDED = r"state 'inner\.h' belongs to a root call that (has ended|is not open here)"


def cell(h=H):
    return Cell(W, jnp.float32(h))


def kept(form):
    """A module kept from a root call that has ended, in some form."""
    found = []
    ox.call(Host(cell(), lambda m, x: found.append(form(m))), X)
    return found[0]


def values(m):
    return jax.tree.map(lambda leaf: leaf, m)


# Functions that were traced in another root call -------------------------------------------------


@pytest.mark.parametrize("use", ["read", "write"])
def test_a_jitted_function_that_closes_over_a_live_module(use):
    """JAX traces it in one root call and runs it in the next, where others have its places."""
    functions = []

    def make(m, x):
        if use == "read":
            functions.append(jax.jit(lambda x: m.h + x))
        else:
            functions.append(jax.jit(lambda x: m.assign(h=x)))
        return functions[0](x)

    ox.call(Host(cell(), make), X)
    with pytest.raises(ox.EffectError, match=ENDED):
        ox.call(Host(cell(), lambda m, x: functions[0](x)), X)


@pytest.mark.parametrize("use", ["read", "write"])
def test_a_jaxpr_that_was_made_in_another_root_call(use):
    jaxprs = []

    def make(m, x):
        act = (lambda x: m.h + x) if use == "read" else (lambda x: m.assign(h=x))
        jaxprs.append(jax.make_jaxpr(act)(x))

    ox.call(Host(cell(), make), X)
    with pytest.raises(ox.EffectError, match=ENDED):
        ox.call(Host(cell(), lambda m, x: jaxpr_as_fun(jaxprs[0])(x)), X)


def test_a_jitted_function_that_is_given_the_module():
    """It is traced once and serves each root call."""
    called = jax.jit(lambda m, x: m(x))
    for h in (0.1, 0.2):
        y, new = ox.call_and_update(Host(cell(h), lambda m, x: called(m, x)), X)
        want = step(W, jnp.float32(h), X)
        close((y, new.inner.h), want)


# Values and snapshots ----------------------------------------------------------------------------


def test_a_stray_value_in_another_root_call():
    """Put together again there, it stands for nothing, even at the same level and path."""
    stray = kept(values)
    for again in (lambda m: m, values, lambda m: jax.tree.unflatten(*jax.tree.flatten(m)[::-1])):
        with pytest.raises(ox.EffectError, match=ENDED):
            ox.call(Host(cell(9.0), lambda m, x, again=again: again(stray)(x)), X)


def test_a_stray_value_put_together_before():
    stray = values(kept(values))
    with pytest.raises(ox.EffectError, match=ENDED):
        ox.call(Host(cell(9.0), lambda m, x: values(stray)(x)), X)


def test_a_stray_value_beside_a_value_of_the_same_place():
    stray = kept(values)

    def run(m, x):
        return values(m)(x) + values(stray)(x)

    with pytest.raises(ox.EffectError, match=ENDED):
        ox.call(Host(cell(9.0), run), X)


def test_a_snapshot_has_no_place():
    def run(m, x):
        m(x)
        snapshot = ox.snapshot(m)
        m(x)
        y, new = values(snapshot).call_and_update(x)
        return y, snapshot.h, new.h

    _, h1 = step(W, H, X)
    y2, h2 = step(W, h1, X)
    for call in both(ox.call_and_update):
        out, new = call(Host(cell(), run), X)
        close(out, (y2, h1, h2))
        close(new.inner.h, h2)


def test_a_snapshot_kept_for_later():
    snapshot = kept(ox.snapshot)
    close(ox.call(Host(cell(9.0), lambda m, x: ox.call(snapshot, x)), X), step(W, H, X)[0])


def test_two_snapshots_have_one_structure():
    class Two(ox.Module):
        a: Cell
        b: Cell

        def call(self, x):
            return jax.tree.map(jnp.subtract, ox.snapshot(self.a), ox.snapshot(self.b)).h

    close(ox.call(Two(cell(3), cell(1)), X), jnp.float32(2))


def test_an_explicit_call_of_an_outer_module_in_an_inner_root_call():
    """The inner root call leaves the places of the outer one as they are."""

    class Inner(ox.Module):
        offset: Array = ox.param()

        def call(self, m, x):
            return m(x) + self.offset, m

    inner = Inner(jnp.float32(0))

    def run(m, x):
        (y, same), _ = inner.call_and_update(values(m), x)
        return y, same(x)

    y1, h1 = step(W, H, X)
    y2, h2 = step(W, h1, X)
    for call in both(ox.call_and_update):
        out, new = call(Host(cell(), run), X)
        close(out, (y1, y2))
        close(new.inner.h, h2)


# On the host -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [lambda m: m, values])
def test_a_module_on_the_host_is_refused(form):
    def run(m, x):
        module, errors = form(m), []

        def on_host(x):
            try:
                return module(x)
            except ox.EffectError as error:
                errors.append(str(error))
                return x

        y = jax.pure_callback(on_host, jax.ShapeDtypeStruct((), jnp.float32), lax.stop_gradient(x))
        return y, errors

    (_, errors), new = ox.call_and_update(Host(cell(), run), X)
    assert len(errors) == 1 and re.search(ENDED, errors[0])
    close(new.inner.h, H)


def test_a_snapshot_on_the_host():
    def run(m, x):
        snapshot = ox.snapshot(m)
        out = jax.ShapeDtypeStruct((), jnp.float32)
        return jax.pure_callback(lambda x: ox.call(snapshot, x), out, x)

    close(ox.call(Host(cell(), run), X), step(W, H, X)[0])


# Stacks ------------------------------------------------------------------------------------------


def test_a_stack_used_as_a_whole_and_in_slices():
    stack = Cell(jnp.ones(3), jnp.zeros(3))

    def run(m, x):
        return lax.scan(lambda x, each: (each(x) + m.h.sum(), None), x, m)[0]

    for call in both(ox.call):
        with pytest.raises(ox.EffectError, match="both as a whole and in slices"):
            call(Host(stack, run), X)


class Pair(ox.Module):
    """Has two leaves of state in one field."""

    pair: tuple = ox.state()

    def call(self, x):
        self.assign(pair=tuple(part + x for part in self.pair))
        return x


def test_a_stack_of_a_part_of_the_leaves():
    """One leaf of the field is sliced, the other is not."""

    def run(m, x):
        leaves, treedef = jax.tree.flatten(m)

        def body(x, slices):
            return jax.tree.unflatten(treedef, [slices, leaves[1]])(x), None

        return lax.scan(body, x, leaves[0])[0]

    for call in both(ox.call):
        with pytest.raises(ox.EffectError, match="hands to its body in slices"):
            call(Host(Pair((jnp.zeros(3), jnp.zeros(3))), run), X)
