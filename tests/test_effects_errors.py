"""Errors for each misuse of state, and the library after them (S5, S6, S7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hosts import Host, both, close, healthy
from jax import lax
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import mlir
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array
from threaded import Acc, Rule, acc, made

import oryxstate as ox

H = 0.3
XS = np.array([1.0, 2.0, 4.0], np.float32)


class Case(NamedTuple):
    """A step that fails, and what the error says."""

    step: Callable
    texts: list[str]
    error: type[Exception] = ox.EffectError
    inner: Callable = lambda: made(Acc)


class Tree(ox.Module):
    hidden: dict[str, Array] = ox.state()

    def call(self, h):
        self.assign(hidden={"a": h})


def assigning(**fields):
    def step(m, h):
        m.assign(**fields)
        return h

    return step


def vmapped(function):
    return lambda m, h: jax.vmap(lambda x: function(m, h, x))(XS)


def batched_cond(m, h, x):
    return lax.cond(x > 1, lambda: m(h), lambda: h)


def batched_while(m, h, x):
    return lax.while_loop(lambda c: c < x, lambda c: c + 0 * m(h) + 1, jnp.float32(0))


def predicate(m, h):
    return lax.while_loop(lambda c: m(c) < 0, lambda c: c + 1, h)


def scanned(m, h):
    members = jax.tree.map(lambda x: jnp.stack([x, x]), m)
    return lax.scan(lambda c, member: (member(c), None), h, members)[0]


def sharded(m, h):
    """Each device gets one of two."""
    members = jax.tree.map(lambda x: jnp.stack([x, x]), m)
    return on_each(
        lambda m, x: jax.tree.map(lambda leaf: leaf[0], m)(x[0])[None],
        (members, h * XS[:2]),
        PartitionSpec("d"),
    )


def on_each(function, args, in_specs, **options):
    """On two devices."""
    options |= {"in_specs": in_specs, "out_specs": PartitionSpec("d")}
    return jax.shard_map(function, mesh=Mesh(jax.devices()[:2], ("d",)), **options)(*args)


def solved(m, h):
    """The module is what the system is solved for."""
    return lax.custom_linear_solve(lambda m: m, m, lambda _, m: (m(h), m)[1], symmetric=True)


def foreign(m, h, kind=Acc):
    return m(made(kind)(h))


class Tick(ox.Module):
    count: Array = ox.state()

    def call(self, h):
        self.assign(count=self.count + 1)
        return h


class Last(ox.Module):
    x: Array = ox.state()

    def call(self, x):
        self.assign(x=x)
        return x


class Float(ox.Module):
    n: Array = ox.state()

    def call(self, h):
        self.assign(n=self.n + h)
        return h


def make_tick():
    return Tick(jnp.int32(0))


MYSTERY = Primitive("mystery")
MYSTERY.def_impl(lambda x, jaxpr: jaxpr_as_fun(jaxpr)(x)[0])
MYSTERY.def_abstract_eval(lambda x, jaxpr: x)
mlir.register_lowering(MYSTERY, mlir.lower_fun(MYSTERY.impl, multiple_results=False))


def mystery(m, h):
    return MYSTERY.bind(h, jaxpr=jax.make_jaxpr(m)(h))


def mystery_in_jit(m, h):
    jaxpr = jax.make_jaxpr(m)(h)
    return jax.jit(lambda h: MYSTERY.bind(h, jaxpr=jaxpr))(h)


MAPPED = ["'inner.total'", "not mapped", "depends on the mapped axis", "float32[]", "float32[3]"]
REMEDIES = ["pmean", "ox.state(reduce=jnp.mean)", "`ox.per_example(model, size)`", "ensemble"]
CASES = {
    "no state": Case(assigning(scale=1.0), ["`scale` of Acc", "total, count"], AttributeError),
    "no field": Case(assigning(totl=1.0), ["`totl` of Acc"], AttributeError),
    "shape": Case(
        assigning(total=jnp.zeros(2)), ["'inner.total' of Acc", "(2,)", "()"], ValueError
    ),
    "dtype": Case(
        assigning(count=jnp.float32(1)), ["'inner.count'", "float32", "int32", "astype"], ValueError
    ),
    "weak dtype": Case(assigning(count=1.5), ["'inner.count'", "float32", "int32"], ValueError),
    "structure": Case(
        lambda m, h: m(h),
        ["'inner.hidden' of Tree", "structure", "'b'"],
        ValueError,
        lambda: Tree({"a": jnp.float32(0), "b": jnp.float32(0)}),
    ),
    "mapped write": Case(vmapped(lambda m, h, x: m(h * x)), [*MAPPED, *REMEDIES]),
    "mapped write of a value": Case(
        lambda m, h: jax.vmap(lambda m, x: m(x), (None, 0))(m, h * XS), [*MAPPED, *REMEDIES]
    ),
    "mapped write in a scan": Case(
        vmapped(lambda m, h, x: lax.scan(lambda c, _: (m(c), None), x, None, length=2)), MAPPED
    ),
    "batched predicate of cond": Case(vmapped(batched_cond), ["depends on the mapped axis"]),
    "batched predicate of while": Case(vmapped(batched_while), ["depends on the mapped axis"]),
    "write in a predicate": Case(
        predicate, ["'inner.total'", "predicate", "lax.while_loop", "body"]
    ),
    "write in a predicate of jit": Case(
        lambda m, h: jax.jit(predicate)(m, h), ["'inner.total'", "predicate", "lax.while_loop"]
    ),
    "stacked, then scanned as xs": Case(
        scanned, ["'inner.", "int32[]", "int32[2]", "reshaped", "call_and_update"]
    ),
    "sharded": Case(sharded, ["'inner.", "shard_map", "in_specs", "call_and_update"]),
    "sharded, used as it is": Case(
        lambda m, h: on_each(lambda m, x: m(x), (m, h * XS[:2]), PartitionSpec("d")),
        ["'inner.n'", "shard_map", "in part", "in_specs"],
        inner=lambda: Float(jnp.zeros(2)),
    ),
    "sharded, unchecked": Case(
        lambda m, h: on_each(
            lambda m, x: m(x), (m, h * XS[:2]), PartitionSpec("d"), check_vma=False
        ),
        ["'inner.n'", "shard_map", "in part", "in_specs"],
        inner=lambda: Float(jnp.zeros(2)),
    ),
    "stacked": Case(
        lambda m, h: jax.tree.map(lambda x: jnp.stack([x, x]), m)(h * XS[:2]),
        ["'inner.x'", "float32[] in the root", "float32[2]", "written", "call_and_update"],
        inner=lambda: Last(jnp.float32(0)),
    ),
    "write that differs by device": Case(
        lambda m, h: on_each(
            lambda m, x: m(x[0])[None], (m, h * XS[:2]), (PartitionSpec(), PartitionSpec("d"))
        ),
        ["'inner.total'", "jax.shard_map", "mesh axis 'd'", "pmean(value, 'd')", "out_specs"],
    ),
    "solved for": Case(
        solved, ["'inner.n'", "custom_linear_solve", "(`b`)"], inner=lambda: Float(jnp.float32(0))
    ),
    "not part of the root": Case(foreign, ["Acc", "`total`", "not part", "field of the model"]),
    "not part of the root, in a scan": Case(
        lambda m, h: lax.scan(lambda c, _: (foreign(m, c), None), h, None, length=2)[0],
        ["not part"],
    ),
    "not part of the root, with a rule": Case(
        lambda m, h: foreign(m, h, Rule), ["Rule", "not part", "field of the model"]
    ),
    "no rule": Case(
        mystery, ["'inner.count'", "`mystery`", "no rule", "call_and_update"], inner=make_tick
    ),
    "no rule, in jit": Case(
        lambda m, h: jax.jit(lambda h: mystery(m, h))(h),
        ["'inner.", "`mystery`", "no rule"],
        inner=make_tick,
    ),
    "no rule, staged before a jit": Case(
        mystery_in_jit, ["'inner.", "no rule", "call_and_update"], inner=make_tick
    ),
    "no rule, in a scan": Case(
        lambda m, h: lax.scan(lambda c, _: (mystery(m, c), None), h, None, length=2)[0],
        ["'inner.", "`mystery`", "no rule"],
        inner=make_tick,
    ),
}


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_error(name, jitted):
    case = CASES[name]
    host = Host(case.inner(), case.step)
    before = jax.tree.leaves(host)
    run = both(ox.call_and_update)[jitted]
    for _ in range(2):  # not from a cache either
        with pytest.raises(case.error) as caught:
            run(host, jnp.float32(H))
        for text in case.texts:
            assert text in str(caught.value)
    assert all(a is b for a, b in zip(before, jax.tree.leaves(host), strict=True))
    assert not any(x.is_deleted() for x in before)
    healthy()


def test_error_of_the_author():
    """An exception in the middle of everything passes through as it is."""

    def step(m, h):
        def body(c, _):
            m(c)
            raise KeyError("mine")

        return jax.grad(lambda h: lax.scan(body, h, None, length=2)[0])(h)

    host = Host(made(Acc), step)
    for run in both(ox.call_and_update):
        with pytest.raises(KeyError, match="mine"):
            run(host, jnp.float32(H))
    healthy()


def test_error_caught_by_the_author():
    """What happened before and after a caught error counts."""

    def step(m, h):
        m(h)
        with pytest.raises(ValueError, match="shape"):
            jax.jit(lambda: m.assign(total=jnp.zeros(2)))()
        return m(h)

    first = acc(tuple(jax.tree.leaves(made(Acc))), jnp.float32(H))
    for run in both(ox.call_and_update):
        close(run(Host(made(Acc), step), jnp.float32(H)), acc(first[1], jnp.float32(H)))
    healthy()


def test_assign_outside_a_root_call():
    with pytest.raises(
        ox.EffectError, match=r"Acc writes `total` outside a root call.*replace\(total"
    ):
        made(Acc).assign(total=1.0)
    with pytest.raises(ox.EffectError, match="outside a root call"):
        jax.jit(lambda m: m.assign(total=1.0))(made(Acc))
    healthy()
