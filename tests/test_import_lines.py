"""What a program of JAX sees of us: in locations, metadata, tracebacks and on Python's stack."""

import os
import re
import subprocess
import sys
import traceback

import jax
import jax.numpy as jnp
import pytest
from hosts import H, Host
from jax import lax
from threaded import Acc, made

import oryxstate as ox

PACKAGE = os.path.dirname(ox.__file__)

# Without us -----------------------------------------------------------------------------------

PROGRAM = """
import re, sys, traceback, {imported}
import jax, jax.numpy as jnp
from jax import lax

def program(x):
    x = lax.scan(lambda h, _: (jnp.sin(h), None), x, None, length=2)[0]
    x = lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x)
    x = lax.while_loop(lambda c: c.sum() < 1, lambda c: c + 1, x)
    x = jax.checkpoint(jax.jit(lambda x: jax.nn.relu(x) ** 2))(x)
    return x + jax.grad(lambda x: jax.nn.silu(x).sum())(x)

x = jnp.ones(3)
print(jax.make_jaxpr(program)(x).pretty_print(source_info=True))
lowered = jax.jit(program).lower(x)
print(lowered.as_text(debug_info=True))
compiled = lowered.compile().as_text()
print(sorted(set(re.findall('"[^"]*"', compiled))))  # files and operations, numbered at random

def wrong(c, _):
    return c @ jnp.ones(2), None

for mode in "remove_frames", "quiet_remove_frames", "off":
    jax.config.update("jax_traceback_filtering", mode)
    try:
        jax.jit(lambda x: lax.scan(wrong, x, None, length=2))(x)
    except TypeError:
        print(traceback.format_exc())

def frames():
    frame, count = sys._getframe(), 0
    while frame is not None:
        frame, count = frame.f_back, count + 1
    return count

# Up to the innermost of nested functions: what is left of the limit is the room that they have.
def nested(wrap, count):
    def innermost(x):
        print(count, frames())
        return jnp.sin(x)
    return wrap(lambda x: nested(wrap, count - 1)(x) + 1 if count else innermost(x))

def own_jvp(f):
    g = jax.custom_jvp(f)
    g.defjvp(lambda primals, tangents: jax.jvp(f, primals, tangents))
    return g

def own_vjp(f):
    g = jax.custom_vjp(f)
    g.defvjp(lambda x: jax.vjp(f, x), lambda pull, bar: pull(bar))
    return g

WRAPS = (
    jax.jit, jax.checkpoint, jax.grad, own_jvp, own_vjp,
    lambda f: lambda x: lax.scan(lambda c, _: (f(c), None), x, None, length=2)[0],
    lambda f: lambda x: lax.cond(x > 0, f, jnp.cos, x),
)
for wrap in WRAPS:
    for count in 1, 5:
        nested(wrap, count)(1.0)
        jax.grad(nested(wrap, count))(1.0)
"""


def test_a_program_that_only_imports_us_sees_nothing(tmp_path):
    """Not in its jaxprs, compiled programs and tracebacks, nor by the frames on its stack."""
    file, printed = tmp_path / "program.py", []
    for imported in "equinox", "oryxstate":
        file.write_text(PROGRAM.format(imported=imported.ljust(9)))
        done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        printed.append(re.sub(r"0x[0-9a-f]+", "", done.stdout).replace(f"import {imported}", ""))
    without, with_us = printed
    assert with_us == without
    assert f'"{file}":7' in with_us and "Traceback" in with_us


# In a root call -------------------------------------------------------------------------------


class Mixed(ox.Module):
    """Everything that a user may write around a stateful module."""

    inner: Acc
    dense: ox.nn.Dense

    def call(self, h):
        h = lax.scan(lambda c, _: (self.inner(c), None), h, None, length=2)[0]
        h = lax.cond(h > 0, self.inner, jnp.sin, h)
        h = jax.vmap(lambda _: self.inner(h))(jnp.arange(2)).sum()
        h = jax.checkpoint(jax.jit(lambda h: jax.nn.relu(self.inner(h))))(h)
        h = self.dense(jnp.stack([h, h])).sum()
        return h + jax.grad(lambda h: self.inner(h) ** 2)(h)


def mixed() -> Mixed:
    dense = ox.nn.Dense.of(2).init(jax.random.key(0), jnp.ones(2))
    return Mixed(made(Acc), dense)


def train(model, h):
    return jax.grad(lambda h: ox.call(model, h))(h)


@pytest.mark.parametrize("function", [ox.call_and_update, train])
def test_locations_are_lines_of_the_user(function):
    jaxpr = jax.make_jaxpr(function)(mixed(), H)
    text = jaxpr.pretty_print(source_info=True)
    assert set(re.findall(r"# (/[^:]*):", text)) <= {__file__, made.__code__.co_filename}
    lowered = jax.jit(function).lower(mixed(), H)
    metadata = lowered.as_text(debug_info=True)
    assert __file__ in metadata
    assert PACKAGE not in text + metadata + lowered.compile().as_text()


def files(error: BaseException) -> list[str]:
    return [frame.filename for frame in traceback.extract_tb(error.__traceback__)]


def author(m, h):
    raise KeyError("mine")


ERRORS = {
    "of the author": (author, KeyError),
    "of JAX": (lambda m, h: lax.concatenate([m(h), h], 0), TypeError),
    "of ours": (lambda m, h: m.assign(total=jnp.ones(3)), ValueError),
    "of ours, by its rule": (
        lambda m, h: lax.while_loop(lambda c: m(c) > 0, jnp.sin, h),
        ox.EffectError,
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_filtered_traceback_ends_at_a_line_of_the_user(name):
    """Also that of our own errors: what went wrong is in their text."""
    step, kind = ERRORS[name]
    host = Host(made(Acc), lambda m, h: lax.cond(h > 0, lambda: step(m, h), lambda: h))
    with pytest.raises(kind) as caught:
        jax.jit(ox.call_and_update)(host, H)
    found = files(caught.value)
    assert found[-1] == __file__
    assert not any(file.startswith(PACKAGE) for file in found)
    jax.config.update("jax_traceback_filtering", "off")
    try:
        with pytest.raises(kind) as caught:
            jax.jit(ox.call_and_update)(host, H)
    finally:
        jax.config.update("jax_traceback_filtering", "auto")
    assert any(file.startswith(PACKAGE) for file in files(caught.value))
