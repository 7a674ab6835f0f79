"""JAX's new primitives for checkpoint and custom derivatives give what the old ones give (S6)."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import flagged
import jax
import pytest

from oryxstate._hi_primitives import HiPrimitive

HERE = Path(__file__).parent
FINISHED = {"JAX_REMAT3": (0, 11, 2), "JAX_CUSTOM_JVP3": (0, 12), "JAX_CUSTOM_VJP3": (0, 12)}
# On older releases the import refuses them, or JAX does not know them.
FLAGS = [flag for flag, since in FINISHED.items() if jax.__version_info__ >= since]
SETS = list(dict.fromkeys([*((flag,) for flag in FLAGS), tuple(FLAGS)]))
# The new checkpoint makes zeros of the symbolic zeros of `jvp`, so a `custom_jvp` function in it
# that reads state is refused a derivative that nobody asks for.
REFUSED = {
    "JAX_REMAT3": {
        name for name in flagged.PROGRAMS if name.startswith("jvp") and "of checkpoint" in name
    }
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


def test_a_high_level_rule_of_an_older_form_is_not_guessed():
    """Before JAX 0.12 `bwd` took other arguments; the import refuses the flag."""
    primitive = types.SimpleNamespace(params={}, effects=frozenset(), out_tree=None)
    with pytest.raises(NotImplementedError, match=r"from JAX 0\.12 on"):
        HiPrimitive({"_prim": primitive}).backward(None, [])
