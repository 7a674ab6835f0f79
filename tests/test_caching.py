"""JAX's caches with state: nothing is traced or compiled twice, and no model is kept alive."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from typing import Any

import jax
import pytest
from hosts import START, H, Host, both, close, leaves_of
from jax import lax
from threaded import BODIES, Acc, acc, made
from transformations import ROWS

import oryxstate as ox

RICH = BODIES["nested"]


class Counted:
    """A body that counts how often Python runs its step."""

    def __init__(self, row: str):
        self.count = 0

        def step(m, h):
            self.count += 1
            return RICH.step(m, h)

        self.host = Host(RICH.make(), ROWS[row].body(RICH._replace(step=step)).step)


def compiled(caplog: Any, function: Any, *args: Any) -> list[str]:
    """What JAX compiles in a call."""
    caplog.clear()
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        jax.block_until_ready(function(*args))
    return [r.getMessage() for r in caplog.records if r.getMessage().startswith("Compiling")]


def test_what_is_compiled_is_counted(caplog):
    assert compiled(caplog, jax.jit(lambda x: x * 3.25 + 1), H)
    assert compiled(caplog, lambda h: lax.scan(lambda c, _: (c + 1, None), h, None, 2), H)


STABLE = [
    "jit",
    "jit inline",
    "jit static",
    "filter_jit",
    "scan",
    "scan reverse",
    "scan unroll",
    "scan without xs",
    "cond",
    "checkpoint",
]


@pytest.mark.parametrize("row", STABLE)
def test_eager_calls_trace_and_compile_once(row, caplog):
    """The body is the same function each time, so JAX traces and compiles it once; so do we."""
    body = Counted(row)
    _, host = ox.call_and_update(body.host, H)
    _, host = ox.call_and_update(host, H)
    traced = body.count
    assert traced > 0
    assert compiled(caplog, ox.call_and_update, host, H) == []
    assert body.count == traced


@pytest.mark.parametrize("row", ROWS)
def test_jitted_calls_trace_and_compile_once(row, caplog):
    if ROWS[row].maps:
        row = "vmap with pmean"
    body = Counted(row)
    call = jax.jit(ox.call_and_update)
    _, host = call(body.host, H)
    _, host = call(host, H)  # now on the devices of the mesh of shard_map, if there is one
    traced = body.count
    other = jax.tree.map(lambda x: x + 1, host)
    assert compiled(caplog, call, host, H) == compiled(caplog, call, other, H) == []
    assert body.count == traced


def test_python_runs_as_often_as_in_plain_jax():
    for row in ("jit", "scan", "cond", "checkpoint", "grad", "grad of checkpoint"):
        body, plain = Counted(row), [0]

        def step(s, h, plain=plain):
            plain[0] += 1
            return h * s

        by_jax = ROWS[row].ours(RICH._replace(step=step))
        for _ in range(2):
            ox.call(body.host, H)
            by_jax(H, H)
        assert body.count == plain[0], row


def test_two_models_through_one_jitted_function():
    call = jax.jit(lambda m, h: ox.call_and_update(m, h))
    models = [made(Acc), made(Acc, 0.75, -0.5, 9)]
    for _ in range(2):
        for model in models:
            close(call(model, H), acc(tuple(jax.tree.leaves(model)), H))
    assert call._cache_size() == 1


def test_one_jitted_body_in_two_scopes():
    body = jax.jit(lambda m, h: m(h))
    scanned = jax.jit(lambda m, h: lax.scan(lambda c, _: (m(c), None), h, None, length=2)[0])

    def step(pair, h):
        return [body(m, h) for m in pair] + [scanned(m, h) for m in pair] + [body(pair[0], h)]

    def by_hand(a, b):
        outs = []
        for times in (1, 2):
            for s in (a, b):
                h, new = H, tuple(s[0])
                for _ in range(times):
                    h, new = acc(new, h)
                s[0] = new
                outs.append(h)
        h, a[0] = acc(a[0], H)
        return [*outs, h], [*a[0], *b[0]]

    pair = [made(Acc), made(Acc, 0.75, -0.5, 9)]
    want = by_hand(*([tuple(jax.tree.leaves(m))] for m in pair))
    for call in both(ox.call_and_update):
        for _ in range(2):
            close(call(Host(pair, step), H), want)


def test_one_body_inside_and_outside_of_a_root():
    """Traced first without a root, and first with one: neither trace is used for the other."""
    for first in (True, False):
        body = jax.jit(lambda m, h: m(h))
        host = Host(made(Acc), lambda m, h, body=body: body(m, h))
        for inside in (first, not first):
            if inside:
                close(ox.call_and_update(host, H), acc(START, H))
            else:
                close(body(made(Acc), H), acc(START, H)[0])


def test_two_threads():
    """Each in the middle of the other's root call."""
    barrier, results = threading.Barrier(2, timeout=60), {}

    def step(m, h):
        barrier.wait()
        h = m(h)
        barrier.wait()
        h = lax.scan(lambda c, _: (m(c), None), h, None, length=3)[0]
        barrier.wait()
        return jax.jit(m)(h)

    def work(name, model):
        try:
            host = Host(model, step)
            for _ in range(3):
                y, host = ox.call_and_update(host, H)
            results[name] = y, host
        except BaseException as error:
            barrier.abort()
            results[name] = error

    models = {"a": made(Acc), "b": made(Acc, 0.75, -0.5, 9)}
    threads = [threading.Thread(target=work, args=item) for item in models.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, model in models.items():
        s = tuple(jax.tree.leaves(model))
        for _ in range(3):
            h = H
            for _ in range(5):
                h, s = acc(s, h)
        close(results[name], (h, s))


MEMORY = ["no transformation", "jit", "scan", "cond", "checkpoint", "grad", "vjp", "custom_jvp"]


@pytest.mark.parametrize("row", [*MEMORY, "vmap with pmean", "while_loop", "custom_vjp"])
def test_models_die(row):
    kept: list[weakref.ref] = []

    def step(m, h):
        kept.append(weakref.ref(m))
        return RICH.step(m, h)

    def use(call):
        host = Host(RICH.make(), ROWS[row].body(RICH._replace(step=step)).step)
        _, new = call(host, H)
        for module in (host, new):
            kept.extend(map(weakref.ref, [module, module.inner, *jax.tree.leaves(module)]))
        with pytest.raises(Exception, match=r"."):  # an error keeps nothing either
            call(host, "no number")

    for call in both(ox.call_and_update):
        use(call)
        gc.collect()
        assert [ref() for ref in kept if ref() is not None] == []


@pytest.mark.parametrize("row", [*MEMORY, "switch", "while_loop", "vmap with pmean", "custom_vjp"])
def test_no_tracer_leaks(row):
    body = ROWS[row].body(RICH)
    host = Host(RICH.make(), body.step)
    want = body.hand(leaves_of(RICH), H)
    with jax.checking_leaks():
        for call in both(ox.call_and_update):
            close(call(host, H), want)
