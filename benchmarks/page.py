"""The tables of docs/explanation/speed.md, made from results.json: `python benchmarks/page.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "speed.md"
BEGIN = "<!-- tables: made by benchmarks/page.py -->\n"
END = "<!-- end of tables -->\n"


def tables(found: dict) -> Iterator[str]:
    """The lines of all tables."""
    machine = found["machine"]
    yield (
        f"Measured with Python {machine['python']}, JAX {machine['jax']} and Equinox "
        f"{machine['equinox']} on {machine['cores']} cores ({machine['backend']}), which others "
        f"used as well: a load of {machine['load']}. {machine['rounds']} rounds; fewer where one "
        "takes long.\n"
    )
    for table in found["results"]:
        yield f"\n### {table['title'][0].upper()}{table['title'][1:]}\n"
        yield "| | milliseconds | ratio | quartiles | |\n| --- | ---: | ---: | --- | --- |"
        for name, row in table["rows"].items():
            low, high = row["quartiles"]
            yield (
                f"| {name} | {row['milliseconds']:.3g} | {row['ratio']:.2f} | {low:.2f} to "
                f"{high:.2f} | {row.get('note', '')} |"
            )


def page(text: str, found: dict) -> str:
    """The page with these results in it."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n" + "\n".join(tables(found)) + f"\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(), json.loads(RESULTS.read_text())))
