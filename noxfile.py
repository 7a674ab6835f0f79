"""Every check of the project, each in an environment of its own; `nox -l` lists them."""

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


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The test suite on each supported Python found, with the newest JAX which that allows."""
    session.install(".[train,view,testing]", *group("test"))
    # Compiled programs are shared by the workers and kept for the next run.
    cache = {
        # Absolute: some tests change the working directory.
        "JAX_COMPILATION_CACHE_DIR": str(session.cache_dir.resolve() / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    session.run("pytest", "-n", "2", *session.posargs, env=cache)


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
def bench(session: nox.Session) -> None:
    """Measure against the peers."""
    session.install(".")
    session.run("python", "benchmarks/run.py", *session.posargs)
