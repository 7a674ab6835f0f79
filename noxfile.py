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


# The oldest supported JAX and the newest that each Python allows; the two ends are what CI runs.
MATRIX = [
    nox.param("3.11", "0.10.0", id="3.11-jax-0.10.0", tags=["ends"]),
    nox.param("3.11", "0.10.2", id="3.11-jax-0.10.2"),
    nox.param("3.12", "0.11.2", id="3.12-jax-0.11.2"),
    nox.param("3.12", "0.12.0.1", id="3.12-jax-0.12.0.1"),
    nox.param("3.13", "0.11.2", id="3.13-jax-0.11.2"),
    nox.param("3.13", "0.12.0.1", id="3.13-jax-0.12.0.1", tags=["ends"]),
]


def compiled(session: nox.Session) -> dict[str, str]:
    """The environment in which compiled programs are shared by processes and kept for the next run."""
    return {
        # Absolute: some tests change the working directory.
        "JAX_COMPILATION_CACHE_DIR": str(session.cache_dir.resolve() / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }


@nox.session
@nox.parametrize(["python", "jax"], MATRIX)
def tests(session: nox.Session, jax: str) -> None:
    """The test suite on the oldest and the newest JAX for each supported Python found."""
    session.install(".[train,view,testing]", *group("test"), f"jax=={jax}")
    session.run("pytest", "-n", "2", *session.posargs, env=compiled(session))


@nox.session
def fuzz(session: nox.Session) -> None:
    """More generated programs than the tests run: `nox -s fuzz -- --programs 1000 --seed 7`."""
    session.install(".[testing]")
    # As pytest sees them: the tests share modules.
    env = {"PYTHONPATH": "tests", **compiled(session)}
    session.run("python", "tests/laws/fuzz.py", *session.posargs, env=env)


@nox.session
def mutants(session: nox.Session) -> None:
    """Break each rule on purpose, and see that the tests fail: `nox -s mutants -- --list`."""
    session.install(".[testing]", *group("test"))
    session.run("python", "tests/mutants.py", *session.posargs, env=compiled(session))


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


@nox.session(python="3.13")
def peers(session: nox.Session) -> None:
    """Run what other libraries do with state, and compare with the page: `nox -s peers -- --write`."""
    session.install(".", *group("peers"))
    arguments = session.posargs or ["--check"]
    session.run("python", "benchmarks/peers/table.py", *arguments, env=compiled(session))
