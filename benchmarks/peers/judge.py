"""Judgement of a library's results, run twice in a row, eagerly and in an outer jit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from layer import Column, Start
from rows import INPUTS, ROWS, Row, layer

IN_JIT = "right in `jit`"  # and refused eagerly
RANKS = ("none", "wrong", "refused", IN_JIT, "right")


class Outcome(NamedTuple):
    """What one program did: one of `RANKS`, and the error or the numbers."""

    word: str
    why: str = ""


class Cell(NamedTuple):
    """What the table says, and the outcomes behind it by the way the row was written."""

    text: str
    outcomes: dict[str, list[Outcome]]


def wanted(row: Row) -> list[tuple[Any, Any, Any]]:
    """Output, total and count after each call, by hand."""
    s, ends = row.start, []
    for h in INPUTS:
        # The state that enters a call is a constant.
        y, s = row.right(partial(layer, through=row.through), s._replace(slope=0.0), h)
        ends.append((y, s.total, s.count))
    return ends


def close(got: list, want: list) -> bool:
    pairs = [pair for both in zip(got, want, strict=True) for pair in zip(*both, strict=True)]
    return all(
        np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in pairs
    )


def used(x: Any) -> np.ndarray:
    """The value, taken as the next program would take it: if a tracer has leaked, JAX says so."""
    return np.asarray(jnp.add(x, 0))


def outcome(start: Start, row: Row, program: Callable, jitted: bool) -> Outcome:
    """Of two calls in a row, with the state carried over."""
    try:
        step = start(row, program, jitted)
        got = [tuple(map(used, step(jnp.float32(h)))) for h in INPUTS]
    except (AssertionError, NameError):  # a slip in a program is no refusal
        raise
    except Exception as error:  # every library has its own types
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        return Outcome("right" if row.right is None else "refused", why)
    if row.right is not None and close(got, wanted(row)):
        return Outcome("right")
    numbers = [[np.round(x.astype(float), 4).tolist() for x in end] for end in got]
    return Outcome("wrong", f"output, total and count after each call are {numbers}")


def both(start: Start, row: Row, program: Callable) -> list[Outcome]:
    """Eagerly and jitted."""
    jax.clear_caches()  # a body traced for another program is none of this one's
    return [outcome(start, row, program, jitted) for jitted in (False, True)]


def together(outcomes: list[Outcome]) -> str:
    words = [o.word for o in outcomes]
    return IN_JIT if words == ["refused", "right"] else min(words, key=RANKS.index)


def best(words: list[str]) -> str:
    """The best way to write a row counts, but one that is silently wrong always does."""
    return "wrong" if "wrong" in words else max(["none", *words], key=RANKS.index)


def worded(column: Column, native: str, own: str) -> str:
    if native == "right":
        return f"{column.word} (own: wrong)" if own == "wrong" else column.word
    if own == "right":
        return f"{column.own_word} (native: wrong)" if native == "wrong" else column.own_word
    return best([native, own])


def judged(column: Column, name: str) -> Cell:
    row = ROWS[name]
    outcomes = {
        f"native {way}": both(column.start, row, program)
        for way, program in column.native(name).items()
    }
    native = best([together(each) for each in outcomes.values()])
    own = "none"
    if name in column.own:
        outcomes["own"] = both(column.start_own or column.start, row, column.own[name])
        own = together(outcomes["own"])
    return Cell(worded(column, native, own), outcomes)
