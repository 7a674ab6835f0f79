"""What the import changes in JAX, and what only an open root call does."""

import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from hosts import H, Host, both, healthy
from jax import lax
from jax.extend.core import primitives
from threaded import Acc, made

import oryxstate as ox
from oryxstate import _interception

INTERCEPTED = [
    getattr(primitives, f"{name}_p")
    for name in ("jit", "scan", "while", "cond", "remat", "custom_jvp_call", "custom_vjp_call")
]


def intercepted() -> bool:
    """Whether JAX's primitives ask rules just now; all of them or none."""
    (found,) = {"bind_with_trace" in vars(primitive) for primitive in INTERCEPTED}
    return found


def in_a_new_process(code: str) -> str:
    """What a program prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


SNAPSHOTS = """
import sys, types
import equinox, jax, jax.extend, jax.custom_derivatives, jax.interpreters.ad
import jax._src.custom_batching, jax._src.hijax, jax._src.shard_map
from jax.extend.core import Primitive

def snapshot():
    found = {}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("jax", "jaxlib"):
            for key, value in vars(module).items():
                found[name, key] = value
                if isinstance(value, (type, Primitive)):
                    found.update({(name, key, k): v for k, v in vars(value).items()})
    return found

program = lambda x: jax.lax.scan(lambda h, _: (jax.numpy.sin(h), None), x, None, 2)[0]
jax.jit(program)(1.0)  # JAX has begun
before = snapshot()
import oryxstate as ox
def check():
    after = snapshot()
    print(sorted(k for k, v in before.items() if k not in after or after[k] is not v))
    print(sorted(k for k in after.keys() - before.keys() if k[:2] in before))
check()
class Net(ox.Module):
    n: jax.Array = ox.state()
    def call(self, x):
        self.assign(n=self.n + 1)
        return program(x)
jax.jit(ox.call_and_update)(Net(jax.numpy.array(0)), 1.0)
check()
"""


def test_no_attribute_of_jax_is_replaced():
    """Of its modules, its classes and its primitives: after the import, and after a root call."""
    assert in_a_new_process(SNAPSHOTS).split("\n")[:4] == ["[]"] * 4


def test_the_page_names_every_primitive_that_is_intercepted():
    page = Path(__file__).parents[1] / "docs/explanation/what-the-import-changes.md"
    text = page.read_text()
    names = {primitive.name for primitive in _interception.INTERCEPTED}
    assert len(names) > 12 and {name for name in names if f"`{name}`" not in text} == set()


def test_rules_are_asked_while_a_root_call_is_open():
    seen = []

    def step(m, h):
        seen.append(intercepted())
        h = lax.scan(lambda c, _: (m(c), None), h, None, length=2)[0]
        ox.call(made(Acc), h)  # a root call inside
        seen.append(intercepted())
        return h

    for run in both(ox.call_and_update):
        assert not intercepted()
        run(Host(made(Acc), step), H)
        assert not intercepted()
    assert seen == [True] * 4


def test_an_error_leaves_jax_as_it_was():
    def step(m, h):
        raise KeyError("mine")

    for run in both(ox.call_and_update):
        with pytest.raises(KeyError, match="mine"):
            run(Host(made(Acc), step), H)
        assert not intercepted()


def test_the_first_and_the_last_thread_decide():
    """One thread's call begins first, and ends first."""
    leave = [threading.Event(), threading.Event()]
    barrier = threading.Barrier(3, timeout=60)

    def work(i):
        def step(m, h):
            barrier.wait()
            assert leave[i].wait(60)
            return lax.scan(lambda c, _: (m(c), None), h, None, length=2)[0]

        results[i] = ox.update(Host(made(Acc), step), H)

    results = {}
    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    barrier.wait()
    for i, thread in enumerate(threads):
        assert intercepted()
        assert jax.jit(lambda x: lax.cond(x > 0, jnp.sin, jnp.cos, x))(H) == jnp.sin(H)
        leave[i].set()
        thread.join(60)
    assert not intercepted()
    assert [int(results[i].inner.count) for i in range(2)] == [int(made(Acc).count) + 2] * 2


@pytest.mark.parametrize("when", ["before", "inside"])
def test_another_library_may_replace_the_same(when, monkeypatch):
    """What replaces a method of a primitive calls what it found; neither loses the other."""
    calls = []
    scan_p = primitives.scan_p

    def replace():
        found = scan_p.bind_with_trace

        def theirs(*args):
            calls.append(args)
            return found(*args)

        scan_p.bind_with_trace = theirs
        return theirs

    def step(m, h):
        if when == "inside" and not calls:
            theirs.append(replace())
        return lax.scan(lambda c, _: (m(c), None), h, None, length=2)[0]

    theirs = [replace()] if when == "before" else []
    try:
        host = Host(made(Acc), step)
        for _ in range(3):
            count, host = len(calls), ox.update(host, H)
            assert len(calls) > count
            assert vars(scan_p)["bind_with_trace"] is theirs[0]
        assert host.inner.count == made(Acc).count + 6
        lax.scan(lambda c, _: (c, None), H, None, length=2)
    finally:
        del scan_p.bind_with_trace
    healthy()


BODIES = {
    "jit": lambda m, h: jax.jit(m)(h),
    "scan": lambda m, h: lax.scan(lambda c, _: (m(c), None), h, None, length=2)[0],
    "while_loop": lambda m, h: lax.while_loop(lambda c: c < 1, m, h),
    "cond": lambda m, h: lax.cond(h > 0, m, jnp.sin, h),
    "checkpoint": lambda m, h: jax.checkpoint(m)(h),
}
RUNS = {
    "eager": lambda f: f(H),
    "jit": lambda f: jax.jit(f)(H),
    "jvp": lambda f: jax.jvp(f, (H,), (H,)),
    "vmap": lambda f: jax.vmap(lambda _: f(H))(jnp.arange(2)),
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("body", BODIES)
def test_a_program_that_outlives_its_call_is_refused(body, run):
    """Nothing asks a rule any more; what reaches evaluation or lowering is refused there."""
    kept = []

    def step(m, h):
        kept.append(jax.make_jaxpr(m)(h))
        return h

    ox.call(Host(made(Acc), step), H)
    (jaxpr,) = kept

    def function(h):
        return BODIES[body](lambda h: jax.core.eval_jaxpr(jaxpr.jaxpr, jaxpr.consts, h)[0], h)

    with pytest.raises(ox.EffectError, match=r"where no root call holds it"):
        RUNS[run](function)
    healthy()
