"""Loops and branches, each with its meaning by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from rows import JVP, VJP, XS, Row, hand_loop, loop, repeat

ROWS: dict[str, Row] = {}


def scanned(**options):
    def ours(f):
        def body(carry, x):
            m, h = carry
            h = f.step(m, h + x)
            return (m, h), h

        def run(m, h):
            (_, h), hs = lax.scan(body, (m, h), XS, **options)
            return h + (XS * hs).sum()

        return run

    order = slice(None, None, -1 if options.get("reverse") else 1)

    def hand(f):
        def run(s, h):
            h, hs, s = loop(f, s, h, XS[order])
            return h + sum(x * y for x, y in zip(XS[order], hs, strict=True)), s

        return run

    return Row(ours, hand)


def scanned_times(count):
    def ours(f):
        def body(carry, _):
            m, h = carry
            return (m, f.step(m, h)), None

        return lambda m, h: lax.scan(body, (m, h), None, length=count)[0][1]

    return Row(ours, hand_loop(count))


def mapped(inputs, **options):
    def ours(f):
        return lambda m, h: lax.map(lambda x: f.step(m, h + x), inputs, **options).sum()

    def hand(f):
        def run(s, h):
            total = jnp.float32(0)
            for x in inputs:
                y, s = f.hand(s, h + x)
                total += y
            return total, s

        return run

    return Row(ours, hand)


def associative(f):
    def ours(m, h):
        def combine(a, b):
            return a + b * f.step(m, a.sum())

        return lax.associative_scan(combine, h + XS).sum()

    return ours


def hand_associative(f):
    def run(s, h):
        def combine(a, b):
            nonlocal s
            y, s = f.hand(s, a.sum())
            return a + b * y

        return lax.associative_scan(combine, h + XS).sum(), s

    return run


def fori(count, *, traced=False):
    def ours(f):
        def run(m, h):
            stop = count + (0 * h).astype(jnp.int32) if traced else count
            return lax.fori_loop(0, stop, lambda _, c: (c[0], f.step(*c)), (m, h))[1]

        return run

    return Row(ours, hand_loop(count), modes=JVP if traced else JVP | VJP)


def while_loop(count):
    def ours(f):
        def body(carry):
            i, m, h = carry
            return i + 1, m, f.step(m, h)

        return lambda m, h: lax.while_loop(lambda c: c[0] < count, body, (0, m, h))[2]

    return Row(ours, hand_loop(count), modes=JVP)


def while_reads(f):
    def body(carry):
        i, m, h = carry
        return i + 1, m, f.step(m, h)

    def cond(carry):
        i, m, _ = carry
        return (i < 4) & (f.peek(m) < 1)

    return lambda m, h: lax.while_loop(cond, body, (0, m, h))[2]


def while_only_reads(f):
    """The body has no state."""

    def run(m, h):
        h = f.step(m, h)
        return lax.while_loop(lambda c: c < f.peek(m) + 2, lambda c: c + 0.5, h)

    return run


def hand_while_only_reads(f):
    def run(s, h):
        h, s = f.hand(s, h)
        for _ in range(20):
            h = jnp.where(h < f.hand_peek(s) + 2, h + 0.5, h)
        return h, s

    return run


def hand_while_reads(f):
    def run(s, h):
        going = True
        for _ in range(4):
            going = going & (f.hand_peek(s) < 1)
            h, s = chosen(going, f.hand(s, h), (h, s))
        return h, s

    return run


def chosen(condition, one, other):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)


def double(m, h):
    return 2 * h


def cond(f):
    return lambda m, h: lax.cond(h > 0, f.step, double, m, h)


def hand_cond(f):
    return lambda s, h: chosen(h > 0, f.hand(s, h), (2 * h, s))


def switch(f):
    branches = [f.step, lambda m, h: f.step(m, f.step(m, h)), double]
    return lambda m, h: lax.switch(index(h), branches, m, h)


def hand_switch(f):
    def run(s, h):
        rest = chosen(index(h) == 1, repeat(2, f, s, h), (2 * h, s))
        return chosen(index(h) == 0, f.hand(s, h), rest)

    return run


def index(h):
    return jnp.abs(jnp.floor(4 * h)).astype(jnp.int32) % 3


ROWS["scan"] = scanned()
ROWS["scan reverse"] = scanned(reverse=True)
ROWS["scan unroll"] = scanned(unroll=2)
ROWS["scan unroll all"] = scanned(unroll=True)
ROWS["scan without xs"] = scanned_times(3)
ROWS["scan no iteration"] = scanned_times(0)
ROWS["map"] = mapped(XS)
ROWS["map nothing"] = mapped(XS[:0])
ROWS["associative_scan"] = Row(associative, hand_associative)
ROWS["fori_loop"] = fori(3)
ROWS["fori_loop traced"] = fori(3, traced=True)
ROWS["fori_loop no iteration"] = fori(0)
ROWS["while_loop"] = while_loop(3)
ROWS["while_loop no iteration"] = while_loop(0)
ROWS["while_loop reads in predicate"] = Row(while_reads, hand_while_reads, modes=JVP)
ROWS["while_loop only reads in predicate"] = Row(while_only_reads, hand_while_only_reads, modes=JVP)
ROWS["cond"] = Row(cond, hand_cond)
ROWS["switch"] = Row(switch, hand_switch)
