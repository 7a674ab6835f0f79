"""A place belongs to one root call, whatever is kept, cached, or handed to the host (S4)."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gains import X, after, gain
from hosts import Host, both
from jax.experimental import io_callback

import oryxstate as ox

SCALAR = jax.ShapeDtypeStruct((), jnp.float32)
ENDED = "belongs to a root call that (has ended|is not open here)"


def ordered(f, m, x):
    return io_callback(f, SCALAR, m, x, ordered=True)


def unordered(f, m, x):
    return io_callback(f, SCALAR, m, x, ordered=False)


def debug(f, m, x):
    jax.debug.callback(lambda m, x: (f(m, x), None)[1], m, x)
    return x


def pure(f, m, x):
    return jax.pure_callback(f, SCALAR, m, x)


def filtered(f, m, x):
    return eqx.filter_pure_callback(f, m, x, result_shape_dtypes=SCALAR)


def mapped(method):
    def run(f, m, x):
        def one(x):
            return jax.pure_callback(f, SCALAR, m, x, vmap_method=method)

        return jax.vmap(one)(x * jnp.ones(2)).sum()

    return run


def jitted(f, m, x):
    return jax.jit(partial(pure, f))(m, x)


CALLBACKS = {
    "pure": pure,
    "ordered io": ordered,
    "unordered io": unordered,
    "debug": debug,
    "Equinox": filtered,
    "mapped one by one": mapped("sequential"),
    "mapped together": mapped("broadcast_all"),
    "in a jit": jitted,
}


@pytest.fixture
def seen():
    return []


@pytest.mark.parametrize("callback", CALLBACKS)
@pytest.mark.parametrize("how", ["argument", "argument that was written", "snapshot"])
def test_the_host_reads_what_it_is_handed(seen, callback, how):
    def on_host(m, x):
        seen.append(float(np.ravel(m.n)[0]))
        return np.asarray(0 * np.ravel(x)[0] + np.zeros(np.shape(x)), np.float32)

    def program(m, x):
        if how == "argument that was written":
            m(x)
        given = ox.snapshot(m) if how == "snapshot" else m
        return CALLBACKS[callback](on_host, given, x)

    def inside(m, x):
        """Another root call, of a module at the same path, is open around it."""
        return m(x) + ox.call(Host(gain(3), program), x)

    after(gain(3), program)
    after(gain(100), inside)
    jax.effects_barrier()
    assert set(seen) == {4.0 if how == "argument that was written" else 3.0}


@pytest.mark.parametrize("callback", CALLBACKS)
@pytest.mark.parametrize("how", ["argument", "closed over"])
@pytest.mark.parametrize("act", ["call", "assign"])
def test_the_host_cannot_write(callback, how, act):
    def write(m, x):
        m(x) if act == "call" else m.assign(n=x)
        return np.float32(0)

    def program(m, x):
        function = write if how == "argument" else lambda _, x: write(m, x)
        return CALLBACKS[callback](function, m if how == "argument" else (), x)

    def inside(m, x):
        return ox.call(Host(gain(3), program), x) + m(x)

    for host in Host(gain(3), program), Host(gain(100), inside):
        for run in both(ox.call):
            with pytest.raises(Exception, match=ENDED):
                jax.block_until_ready(run(host, X))
                jax.effects_barrier()


@pytest.mark.parametrize("callback", ["pure", "mapped one by one", "in a jit"])
def test_the_host_may_call_a_snapshot(callback):
    def on_host(m, x):
        y, new = m.call_and_update(x)
        return np.float32(y + new.n)

    def program(m, x):
        m(x)
        return CALLBACKS[callback](on_host, ox.snapshot(m), x)

    y, n = after(gain(3), program)
    assert (float(y), float(n)) == ((22.0 if "mapped" in callback else 11.0), 4.0)


# Kept from an earlier call ------------------------------------------------------------------------


def staged(m, x):
    closure = jax.jit(lambda x: m(x))
    closure(x)
    return closure


def staged_value(m, x):
    return staged(jax.tree.map(lambda leaf: leaf, m), x)


def from_structure(m, x):
    structure = jax.tree.structure(m)
    return lambda x: jax.tree.unflatten(structure, [X, X])(x)


KEPT = {
    "module": lambda m, x: m,
    "value": lambda m, x: jax.tree.map(lambda leaf: leaf, m),
    "bound method": lambda m, x: m.call,
    "lambda": lambda m, x: lambda x: m(x),
    "jit": lambda m, x: jax.jit(lambda x: m(x)),
    "traced jit": staged,
    "partial": lambda m, x: jax.tree_util.Partial(lambda m, x: m(x), m),
    "assign": lambda m, x: lambda x: m.assign(n=x),
    "checkpoint": lambda m, x: jax.checkpoint(lambda x: m(x)),
    "explicit": lambda m, x: lambda x: jax.jit(lambda m, x: m(x))(m, x),
}
KEPT |= {"traced jit of a value": staged_value, "structure": from_structure}


@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_never_acts_on_a_later_call(name):
    kept: list[Any] = []

    def keep(m, x):
        kept.append(KEPT[name](m, x))
        return m(x)

    ox.call(Host(gain(3), keep), X)

    def later(m, x):
        kept[0](x)
        return m(x)

    def later_in_jit(m, x):
        return m(x) + jax.jit(lambda x: (kept[0](x), x)[1])(x)

    for program in later, later_in_jit:
        for run in both(ox.call_and_update):
            for _ in range(2):
                with pytest.raises(ox.EffectError, match=ENDED):
                    run(Host(gain(100), program), X)
    assert after(gain(100), lambda m, x: m(x)) == (102.0, 101.0)


def test_live_in_another_thread():
    errors = []

    def program(m, x):
        def elsewhere():
            try:
                m(x)
            except ox.EffectError as error:
                errors.append(str(error))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        return m(x)

    assert after(gain(3), program)[1] == 4
    assert len(errors) == 3  # the second jitted call traces nothing
    assert all("root call" in error for error in errors)
