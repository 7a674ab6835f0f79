"""The table of unstable names, without oryxstate: what has moved is named even when that fails.

`python tests/surface.py --write` makes docs/explanation/jax-surface.md from it.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/explanation/jax-surface.md"
PACKAGE = Path(importlib.util.find_spec("oryxstate").origin).parent


def load() -> ModuleType:
    """The file `_surface.py` by itself."""
    name = "surface_alone"
    spec = importlib.util.spec_from_file_location(name, PACKAGE / "_surface.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where named tuples find their annotations
    spec.loader.exec_module(module)
    return module


table = load()
resolve = table.resolve

HEAD = """# The surface of JAX that oryxstate stands on

<!-- Made from oryxstate/_surface.py by `python tests/surface.py --write`. Edit that file. -->

State threads itself because oryxstate sees primitives at the moment at which JAX binds them. JAX
has no public hook for that, so the library uses names that a release of JAX may move. This page
lists all of them. They stand in one file, `oryxstate/_jax.py`; each has a test of its own, which
names it when it has moved; and on a release of JAX that no test has seen, the import looks at
each of them before it uses any ([when JAX releases](when-jax-releases.md)).

## Private names

Names of `jax._src`, which JAX does not promise to anybody. [One public hook](upstream.md) would
replace most of them.

"""
PUBLIC = """## Public names of unstable modules

JAX exports these, in modules whose contents may change from one release to the next without a
deprecation.

"""
PRIMITIVES = """## Primitives that are found by name

JAX does not export these primitives. It exports the tables of its rules,
`jax.interpreters.ad.primitive_jvps` and `jax.interpreters.partial_eval.dce_rules`, whose keys are
primitives, and a primitive has the name that a printed jaxpr shows.

"""
OBJECTS = """## Classes that are found by looking

The classes of traces and tracers are not exported either. They are those of the objects that a
function meets inside the transformation. Each tracer has a `_trace`, and each trace a `tag` and a
`parent_trace`.

"""


def rows(header: str, lines: list[str]) -> str:
    """A table of Markdown."""
    titles = header.split(" | ")
    return "\n".join([f"| {header} |", f"|{'---|' * len(titles)}", *lines]) + "\n"


def call(row: table.Name) -> str:
    """How a name is called, in words."""
    given = [] if row.takes is None else [f"{row.takes} by position"]
    return ", ".join([*given, *(f"`{keyword}=`" for keyword in row.keywords)])


def page() -> str:
    """The page."""
    private = rows(
        "Name | What it is for | Since JAX | What could replace it",
        [f"| `{r.name}` | {r.purpose} | {r.since} | {r.instead} |" for r in table.PRIVATE],
    )
    public = rows(
        "Name | What it is for | Arguments",
        [f"| `{r.name}` | {r.purpose} | {call(r)} |" for r in table.PUBLIC],
    )
    primitives = rows(
        "Primitive | What binds it",
        [f"| `{name}` | {purpose} |" for name, purpose in table.PRIMITIVES.items()],
    )
    objects = rows(
        "Transformation | Attributes of its tracers",
        [
            f"| `{name}` | {', '.join(f'`{part}`' for part in parts)} |"
            for name, (_, parts) in table.TRANSFORMATIONS.items()
        ],
    )
    sections = [HEAD + private, PUBLIC + public, PRIMITIVES + primitives, OBJECTS + objects]
    return "\n".join(sections)


if __name__ == "__main__" and "--write" in sys.argv:
    PAGE.write_text(page())
