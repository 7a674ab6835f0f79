"""JAX's new primitives for checkpoint and custom derivatives give what the old ones give (S6)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import flagged
import jax
import pytest

HERE = Path(__file__).parent
FLAGS = [
    flag
    for flag in ("JAX_REMAT3", "JAX_CUSTOM_JVP3", "JAX_CUSTOM_VJP3")
    if flag.lower() in jax.config.values
]
if jax.__version_info__ < (0, 12):  # it has no symbolic zeros where a `custom_vjp` is staged
    FLAGS.remove("JAX_CUSTOM_VJP3")
SETS = list(dict.fromkeys([*((flag,) for flag in FLAGS), tuple(FLAGS)]))


def in_checkpoint(*kinds):
    names = flagged.PROGRAMS
    return {n for n in names if n.startswith(kinds) and "of checkpoint" in n}


# The new checkpoint makes zeros of the symbolic zeros of `jvp` (of `vjp` too in its first form), so
# a function in it that reads state and has a derivative of its own is refused one that nobody asks
# for. The new `custom_jvp` of 0.11.2 adds the tangents of integers.
REFUSED = {
    "JAX_REMAT3": in_checkpoint("jvp", *(["vjp"] if jax.__version_info__ < (0, 11, 1) else [])),
    "JAX_CUSTOM_JVP3": {"jvp, plain"} if jax.__version_info__ == (0, 11, 2) else set(),
}


@pytest.mark.parametrize("name", sorted(flagged.PROGRAMS))
def test_without_flags(name):
    flagged.PROGRAMS[name]()


@pytest.mark.parametrize("flags", SETS, ids=" ".join)
def test_with_flags(flags):
    """In a process of its own: JAX reads some of its flags when it is imported."""
    paths = os.pathsep.join(map(str, (HERE.parent, HERE)))
    environment = {**os.environ, **dict.fromkeys(flags, "1"), "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(HERE / "flagged.py")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    *failed, last = done.stdout.splitlines() or [""]
    assert last == "done", done.stderr
    assert set(failed) == set().union(*(REFUSED.get(flag, ()) for flag in flags)), done.stderr
