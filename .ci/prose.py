"""Checks of the prose of the project: phrases that its readers stumble over, subjects of commits.

`python .ci/prose.py` looks at docstrings, comments, messages and pages. As a commit hook,
`python .ci/prose.py --message FILE` looks at the subject of a commit.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ["*.md", "docs/**/*.md", "oryxstate/**/*.py", "tests/**/*.py", "benchmarks/**/*.py"]
LIMIT = 72

# What is written, and what to write instead. See "Plain English" in CONTRIBUTING.md.
PHRASES = {
    r"(?<!there )\b(is|are) no (?=(arrays?|numbers?|tracers?|modules?|models?|layers?|functions?|"
    r"keys?|params?|variables?|fields?|strings?|templates?|tuples?|"
    r"root|parts?|places?|annotations?|data)\b)": "'is not a ...'",
    r"\bbe it\b": "'whether it is ...'",
    r"\bthe way there\b": "'the forward pass'",
    r"\bthe way back\b": "'the backward pass'",
    r"\bto speak of\b": "the condition itself",
}
PATTERNS = {re.compile(pattern, re.IGNORECASE): instead for pattern, instead in PHRASES.items()}
THIRD_PERSON = re.compile(
    r"(?!(Bring|Embed|Exceed|Feed|Need|Proceed|Seed|Shed|Speed)\b)"  # imperatives too
    r"(Adds|Fixes|Makes|Changes|Removes|Updates|\w+ed|\w+ing)\b"
)
SCISSORS = "# ------------------------ >8"  # of `git commit --verbose`, above the changes


def in_files() -> Iterator[str]:
    """Say where a phrase stands."""
    for path in sorted({path for pattern in PAGES for path in ROOT.glob(pattern)}):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for pattern, instead in PATTERNS.items():
                if found := pattern.search(line):
                    where = f"{path.relative_to(ROOT)}:{number}"
                    yield f"{where}: '{found[0].strip()}': write {instead}"


def in_subject(message: str) -> Iterator[str]:
    """Say what is wrong with the subject of a commit."""
    lines = message.partition(SCISSORS)[0].splitlines()
    # Git takes its own comments out only after this hook.
    subject, *rest = [line for line in lines if not line.startswith("#")] or [""]
    if len(subject) > LIMIT:
        yield f"the subject has {len(subject)} characters, at most {LIMIT}: the reason goes below"
    if subject.endswith("."):
        yield "the subject ends with a full stop"
    if not subject[:1].isupper():
        yield "the subject does not begin with a capital letter"
    if THIRD_PERSON.match(subject):
        yield f"the subject begins with '{subject.split()[0]}': write an imperative"
    if rest and rest[0]:
        yield "the line below the subject is not empty"


def main(arguments: list[str]) -> int:
    """Print what is wrong; 1 if anything is."""
    if arguments[:1] == ["--message"]:
        wrong = list(in_subject(Path(arguments[1]).read_text()))
    else:
        wrong = list(in_files())
    print("\n".join(wrong) or "nothing to mend")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
