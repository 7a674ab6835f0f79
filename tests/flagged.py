"""Programs that are compared with hand-threaded JAX, whichever primitives JAX's flags select.

`python flagged.py` runs all of them, prints the names of those that fail, and says why on stderr.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import conftest  # noqa: F401  (its settings of JAX are those of all tests)
import jax
import jax.numpy as jnp
from cells import Cell, H, Outer, W, X, step
from custom_rules import FORMS, STAGES, B, P, Q, T, call_by_hand, gauge, slopes
from hosts import Host, close
from jax import lax
from jax.ad_checkpoint import checkpoint_name

import oryxstate as ox

PROGRAMS: dict[str, Callable[[], None]] = {}
POLICIES: dict[str, Any] = {
    "no policy": None,
    "nothing saved": jax.checkpoint_policies.nothing_saveable,
    "everything saved": jax.checkpoint_policies.everything_saveable,
    "dots saved": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "names saved": jax.checkpoint_policies.save_only_these_names("named"),
    "all but names saved": jax.checkpoint_policies.save_anything_except_these_names("named"),
}


class Named(Cell):
    def call(self, x):
        h = checkpoint_name(jnp.tanh(self.w * self.h + x), "named")
        self.assign(h=jnp.sin(h))
        return self.w * self.h


def named_step(w, h, x):
    h = jnp.sin(jnp.tanh(w * h + x))
    return w * h, h


def three_steps(w, h, x):
    for _ in range(3):
        x, h = named_step(w, h, x)
    return x + h**2


def remat(wrap: Callable, how: str) -> None:
    """Three steps, each in a checkpoint, inside a call, in a loop, or around the root call."""

    def program(m, x):
        call = wrap(lambda x: m(x))
        if how == "scan":
            return lax.scan(lambda c, _: (call(c), None), x, None, length=3)[0]
        if how == "argument":
            call = partial(wrap(lambda m, x: m(x)), m)
        return call(call(call(x)))

    def ours(w, h, x):
        host = Host(Named(w, h), program)
        if how == "root":
            host, run = Outer(Named(w, h)), wrap(ox.call_and_update)
            for _ in range(3):
                x, host = run(host, x)
            return x + host.cell.h**2
        y, new = ox.call_and_update(host, x)
        return y + new.inner.h**2

    compare(ours, three_steps, (W, H, X))


def compare(ours, theirs, args, modes=("grad", "jvp")):
    """Values and derivatives, eagerly and jitted, with two patterns of perturbed inputs."""
    if "grad" in modes:
        want = jax.value_and_grad(theirs, (0, 1, 2))(*args)
        close(jax.value_and_grad(ours, (0, 1, 2))(*args), want)
        close(jax.grad(jax.jit(ours), (0, 2))(*args), (want[1][0], want[1][2]))
    if "jvp" in modes:
        close(jax.jit(lambda: jax.jvp(ours, args, args))(), jax.jvp(theirs, args, args))


def custom(form: str, stage: str) -> None:
    wrap, hand = STAGES[stage]

    def program(m, pq):
        function = wrap(FORMS[form](m))
        return function(*pq) + function(*reversed(pq))

    def ours(p, q, t):
        y, new = ox.call_and_update(Host(gauge(B, t), program), (p, q))
        return y + new.inner.t**2

    def theirs(p, q, t):
        y, s = hand(call_by_hand)((B, t, jnp.int32(0)), p, q)
        z, s = hand(call_by_hand)(s, q, p)
        return y + z + s[1] ** 2

    compare(ours, theirs, (P, Q, T), ("grad", "jvp") if form.startswith("jvp") else ("grad",))


def custom_vjp_batched_at_once() -> None:
    """Mapped with `generic_batching`, as an ensemble."""

    def program(m, pq):
        def function(m, p, q):
            run = jax.custom_vjp(lambda m, p, q: m(p, q))
            run.defvjp(
                lambda m, p, q: (m(p, q), (p, q)),
                lambda saved, bar: (None, *(bar * slope for slope in slopes(*saved))),
                generic_batching=True,
            )
            return run(m, p, q)

        return jax.vmap(function, (0, 0, None))(m, *pq).sum()

    def ours(p, q, t):
        members = jax.tree.map(lambda *leaves: jnp.stack(leaves), gauge(B, t), gauge(B, 2 * t))
        y, new = ox.call_and_update(Host(members, program), (jnp.stack([p, 3 * p]), q))
        return y + (new.inner.t**2).sum()

    def theirs(p, q, t):
        y, (_, new, _) = call_by_hand((B, jnp.stack([t, 2 * t]), 0), jnp.stack([p, 3 * p]), q)
        return y.sum() + (new**2).sum()

    compare(ours, theirs, (P, Q, T), ("grad",))


def custom_vjp_with_logs() -> None:
    """What the backward pass logs comes out, and depends on the state that the function read."""

    def program(m, pq):
        run = jax.custom_vjp(lambda p, q: m(p, q))

        def backward(saved, bar):
            return tuple(bar * slope for slope in slopes(*saved)), {"bar": bar * m.b}

        run.defvjp_with_logs(lambda p, q: (m(p, q), (p, q)), backward)
        return run(*pq)

    def ours(p, q, t):
        y, new = ox.call_and_update(Host(gauge(B, t), program), (p, q))
        return y + new.inner.t**2

    def theirs(p, q, t):
        y, (_, new, _) = call_by_hand((B, t, 0), p, q)
        return y + new**2

    compare(ours, theirs, (P, Q, T), ("grad",))
    _, pull = jax.vjp(ours, P, Q, T)
    _, logs = pull.with_logs(jnp.float32(2))
    close(logs, {"bar": 2 * B})


def stack(wrap: Callable) -> None:
    ws, hs = jnp.stack([W, -W]), jnp.stack([H, 2 * H])

    def ours(ws, hs, x):
        body = wrap(lambda h, cell: (cell(h), None))
        y, new = ox.call_and_update(Host(Cell(ws, hs), lambda m, x: lax.scan(body, x, m)[0]), x)
        return y + (new.inner.h**2).sum()

    def theirs(ws, hs, x):
        total = 0
        for w, h in zip(ws, hs, strict=True):
            x, h = step(w, h, x)
            total = total + h**2
        return x + total

    compare(ours, theirs, (ws, hs, X))


for policy in POLICIES:
    for how in ("closed over", "root") if policy != "no policy" else ("scan", "argument", "root"):
        PROGRAMS[f"checkpoint, {policy}, {how}"] = partial(
            remat, partial(jax.checkpoint, policy=POLICIES[policy]), how
        )
PROGRAMS["checkpoint, prevent_cse=False"] = partial(
    remat, partial(jax.checkpoint, prevent_cse=False), "scan"
)
if "Sequence" in str(inspect.signature(jax.checkpoint).parameters["prevent_cse"].annotation):
    for cse in (True,), (False,):
        PROGRAMS[f"checkpoint, prevent_cse={cse}"] = partial(
            remat, partial(jax.checkpoint, prevent_cse=cse), "scan"
        )
SOME_STAGES = "plain", "jit", "scan of checkpoint", "cond"
for form in FORMS:
    for stage in SOME_STAGES if form in ("vjp", "jvp") else ("jit of checkpoint",):
        PROGRAMS[f"{form}, {stage}"] = partial(custom, form, stage)
if "generic_batching" in inspect.signature(jax.custom_vjp.defvjp).parameters:
    PROGRAMS["generic_batching"] = custom_vjp_batched_at_once
if hasattr(jax.custom_vjp, "defvjp_with_logs"):
    PROGRAMS["defvjp_with_logs"] = custom_vjp_with_logs
PROGRAMS["stack"] = partial(stack, lambda f: f)
PROGRAMS["stack, checkpoint"] = partial(stack, jax.checkpoint)


def main() -> None:
    for name, program in PROGRAMS.items():
        try:
            program()
        except Exception:
            print(name, flush=True)
            traceback.print_exc(limit=-3)
    print("done")


if __name__ == "__main__":
    main()
