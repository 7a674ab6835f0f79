"""Every check of the project, each in an environment of its own; `nox -l` lists them."""

from pathlib import Path

import nox
from python_discovery import get_interpreter

# Since this release nox finds an interpreter by running it: a pyenv shim that only answers
# "command not found" is none.
nox.needs_version = ">=2026.8.10"
nox.options.sessions = ["lint", "typecheck", "docs", "imports", "tests"]

PYTHONS = ["3.11", "3.12", "3.13"]
# A Python that is not on this machine is skipped, in CI too; having none of them is an error.
nox.options.error_on_missing_interpreters = not any(map(get_interpreter, PYTHONS))
nox.options.download_python = "never"


def group(name: str) -> tuple[str, ...]:
    """The requirements of one dependency group of pyproject.toml."""
    return nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), name)


def versions(*pairs: tuple[str, str]) -> list:
    """Parameters of a session: a Python and a JAX."""
    return [nox.param(*pair, id="-jax-".join(pair)) for pair in pairs]


def compiled(session: nox.Session) -> dict[str, str]:
    """The environment in which compiled programs are shared and kept for the next run."""
    return {
        # Absolute: some tests change the working directory.
        "JAX_COMPILATION_CACHE_DIR": str(session.cache_dir.resolve() / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }


def run_tests(session: nox.Session, jax: str) -> None:
    """Run the test suite with this JAX."""
    session.install(".[train,view,testing]", *group("test"), f"jax=={jax}")
    session.run("pytest", "-n", "2", *session.posargs, env=compiled(session))


# From the oldest supported JAX to the newest; each Python allows some of them.
@nox.session
@nox.parametrize(
    ["python", "jax"], versions(("3.11", "0.10.0"), ("3.12", "0.11.2"), ("3.13", "0.12.0.1"))
)
def tests(session: nox.Session, jax: str) -> None:
    """The test suite on each supported Python found, with a JAX of its own."""
    run_tests(session, jax)


@nox.session
@nox.parametrize(
    ["python", "jax"], versions(("3.11", "0.10.2"), ("3.12", "0.12.0.1"), ("3.13", "0.11.2"))
)
def matrix(session: nox.Session, jax: str) -> None:
    """The test suite on what `tests` leaves out: the other end of each Python's range of JAX."""
    run_tests(session, jax)


@nox.session
def fuzz(session: nox.Session) -> None:
    """More generated programs than the tests run: `nox -s fuzz -- --programs 1000 --seed 7`."""
    session.install(".[testing]")
    # As pytest sees them: the tests share modules.
    env = {"PYTHONPATH": "tests", **compiled(session)}
    session.run("python", "tests/programs/fuzz.py", *session.posargs, env=env)


@nox.session
def mutants(session: nox.Session) -> None:
    """Break each rule on purpose, and see that the tests fail: `nox -s mutants -- --list`."""
    session.install(".[testing]", *group("test"))
    session.run("python", "tests/mutants.py", *session.posargs, env=compiled(session))


@nox.session
def crash(session: nox.Session) -> None:
    """Kill a run while it saves, many times: `nox -s crash -- --kills 1000 --seed 7`."""
    session.install(".[train]")
    arguments = session.posargs or ["--kills", "200"]
    session.run("python", "tests/crash.py", *arguments, env=compiled(session))


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff's rules and its formatting."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Pyright over the package and over what users write with it (tests/typing)."""
    session.install(".[train,view,testing]", *group("typecheck"))
    session.run("pyright")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, built into .site; a broken link is an error."""
    session.install(*group("docs"))
    session.run("mkdocs", "build", "--strict", "--config-file", ".mkdocs.yml")


@nox.session
def imports(session: nox.Session) -> None:
    """The package imports without any extra."""
    session.install(".")
    # -I: the installed package, not the folder beside this file.
    session.run("python", "-I", "-c", "import oryxstate")


@nox.session
def demo(session: nox.Session) -> None:
    """Train on the handwritten digits: `nox -s demo -- --help`."""
    session.install(".[train,view]", *group("demo"))
    session.run("python", "docs/examples/digits.py", *session.posargs)


@nox.session
def charlm(session: nox.Session) -> None:
    """Train a small transformer on docstrings, and let it write: `nox -s charlm -- --help`."""
    session.install(".[train]")
    session.run("python", "docs/examples/charlm.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure against the peers."""
    session.install(".[testing]")  # beartype
    session.run("python", "benchmarks/run.py", *session.posargs)


@nox.session(python="3.13")
def peers(session: nox.Session) -> None:
    """Other libraries: the page on state, layers, and solvers; `nox -s peers -- --write`."""
    session.install(".[testing]", *group("peers"))
    arguments = session.posargs or ["--check"]
    session.run("python", "benchmarks/peers/table.py", *arguments, env=compiled(session))
    parity = sorted(map(str, Path("tests/nn").glob("parity_*.py")))
    session.run("pytest", *parity, "tests/peers_solvers.py", env=compiled(session))
