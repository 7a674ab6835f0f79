"""Every check of the project, each in an environment of its own; `nox -l` lists them."""

import os
import shutil
from pathlib import Path

import nox
from python_discovery import get_interpreter

# Since this release nox finds an interpreter by running it: a pyenv shim that only answers
# "command not found" is none.
nox.needs_version = ">=2026.8.10"
nox.options.sessions = ["lint", "typecheck", "docs", "package", "tests"]

# Each supported Python with a JAX of its own, from the oldest JAX to the newest.
ROWS = [("3.11", "0.10.0"), ("3.12", "0.11.2"), ("3.13", "0.12.0.1"), ("3.14", "0.12.0.1")]
FOUND = [row for row in ROWS if get_interpreter(row[0])]
# A Python that is not on this machine is skipped, in CI too; having none of them is an error.
nox.options.error_on_missing_interpreters = not FOUND
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


def run_tests(session: nox.Session, jax: str, *options: str) -> None:
    """Run the test suite with this JAX."""
    session.install(".[train,view,testing]", *group("test"), f"jax=={jax}")
    session.run("pytest", "-n", "2", *options, *session.posargs, env=compiled(session))


# Tests of what is built on the core and asks little of JAX itself, which take half of the time. A
# new file runs on each JAX unless it is listed; of the tests of layers only these do.
OF_LAYERS = ["test_batched", "test_in_functions", "test_keywords"]
ABOVE = [
    "tests/testing",
    "tests/user_programs",
    *(str(p) for p in sorted(Path("tests/nn").glob("test_*.py")) if p.stem not in OF_LAYERS),
    *(f"tests/test_{name}*.py" for name in ("checkpoint", "mapping", "select", "docs")),
    *(f"tests/test_{name}.py" for name in ("find_nonfinite", "summary", "diff", "shown")),
    *(
        f"tests/test_{name}.py"
        for name in ("mutations", "architecture", "counts", "speed_page", "house")
    ),
    *(f"tests/test_{name}.py" for name in ("demo", "charlm", "distributed", "launch", "scale")),
]


@nox.session
@nox.parametrize(["python", "jax"], versions(*ROWS))
def tests(session: nox.Session, jax: str) -> None:
    """All tests on the newest supported Python found, and those of the core on the others."""
    whole = (session.python, jax) == FOUND[-1]
    run_tests(session, jax, *([] if whole else [f"--ignore-glob={path}" for path in ABOVE]))


@nox.session
@nox.parametrize(["python", "jax"], versions(*ROWS))
def everything(session: nox.Session, jax: str) -> None:
    """All tests on each supported Python found."""
    run_tests(session, jax)


# What a release of JAX moves shows here first: its names, then state through each transformation.
SURFACE = ["tests/test_jax_surface.py", "tests/test_jax_surface_objects.py"]
TRANSFORMATIONS = ["tests/test_transformations.py", "tests/test_transformations_alone.py"]
EQUATIONS = ["tests/test_equations.py"]


def row(session: nox.Session, env: dict[str, str]) -> None:
    """The surface, the transformations, the equations, and 300 generated programs."""
    env = {"PYTHONPATH": "tests", **compiled(session), **env}
    session.run("pytest", "-n", "2", *SURFACE, *TRANSFORMATIONS, *EQUATIONS, env=env)
    session.run("python", "tests/programs/fuzz.py", "--programs", "300", env=env)


# Implementations that JAX is about to change to, and the first release that knows each; the last is
# known from 0.10.0 on, but has no symbolic zeros where it is staged before 0.12.
FLAGS = {"JAX_REMAT3": "0.10.2", "JAX_CUSTOM_JVP3": "0.11.1", "JAX_CUSTOM_VJP3": "0.12.0"}


def numbers(version: str) -> tuple[int, ...]:
    """A version that can be compared."""
    return tuple(map(int, version.split(".")))


def flags_of(jax: str) -> list[list[str]]:
    """None of the flags that a release knows, each of them, and all."""
    known = [flag for flag, since in FLAGS.items() if numbers(jax) >= numbers(since)]
    return [[], *([flag] for flag in known), *([known] if len(known) > 1 else [])]


# Every release that oryxstate/_releases.py names; the Python is the oldest that the release takes.
@nox.session
@nox.parametrize(
    ["python", "jax"],
    versions(
        ("3.11", "0.10.0"),
        ("3.11", "0.10.1"),
        ("3.11", "0.10.2"),
        ("3.12", "0.11.0"),
        ("3.12", "0.11.1"),
        ("3.12", "0.11.2"),
        ("3.12", "0.12.0"),
        ("3.12", "0.12.0.1"),
    ),
)
def matrix(session: nox.Session, jax: str) -> None:
    """A row of tests on each release of JAX, without and with the new implementations."""
    session.install(".[train,view,testing]", *group("test"), f"jax=={jax}")
    for flags in flags_of(jax):
        session.log(f"JAX {jax}, {' '.join(flags) or 'no flags'}")
        row(session, dict.fromkeys(flags, "1"))


# Where JAX's project serves a wheel of each night; another in `ORYXSTATE_JAX_INDEX`.
NIGHTLY = "https://us-python.pkg.dev/ml-oss-artifacts-published/jax/simple/"


@nox.session
def tomorrow(session: nox.Session) -> None:
    """The surface and the transformations on JAX's newest source, or its newest pre-release."""
    session.install(".[train,view,testing]", *group("test"))
    index = os.environ.get("ORYXSTATE_JAX_INDEX", NIGHTLY)  # pip goes on without one that is silent
    session.install("--pre", "--upgrade", "jax", "jaxlib", "--extra-index-url", index)
    # First by itself, without the package: it names what has moved when nothing can be imported.
    session.run("pytest", *SURFACE, env=compiled(session))
    session.run("pytest", "-n", "2", *TRANSFORMATIONS, env=compiled(session))


# Libraries beside JAX, and the tests of what touches them.
BESIDE = ["equinox", "jaxtyping", "wadler-lindig", "beartype", "hypothesis", "optax"]
BESIDE += ["orbax-checkpoint"]
TOUCHED = [
    *(f"tests/test_annotations{part}.py" for part in ("", "_fitting", "_setting")),
    *(f"tests/test_{name}.py" for name in ("containers", "grad", "live", "properties", "spec")),
    "tests/test_docs.py",
    "tests/testing",
]


def claimed() -> list[str]:
    """The requirements on these libraries in pyproject.toml, without markers and comments."""
    project = nox.project.load_toml("pyproject.toml")["project"]
    extras = project["optional-dependencies"].values()
    found = [*project["dependencies"], *(line for extra in extras for line in extra)]
    return [line for line in found if line.split(">=")[0] in BESIDE]


@nox.session(python="3.12")
@nox.parametrize("which", ["oldest", "newest"])
def beside(session: nox.Session, which: str) -> None:
    """The libraries beside JAX: the oldest that are claimed on the oldest JAX, and the newest."""
    if which == "oldest":
        chosen = ["jax==0.10.0", *(line.replace(">=", "==") for line in claimed())]
    else:
        chosen = ["--upgrade", "--upgrade-strategy", "eager", "jax", *BESIDE]
    session.install(".[train,view,testing]", *group("test"))
    session.install(*chosen)
    session.run("pytest", "-n", "2", *TOUCHED, env=compiled(session))


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
    """Kill a run while it saves, and one of several processes: `nox -s crash -- --seed 7`."""
    session.install(".[train]")
    env = compiled(session)
    session.run("python", "tests/crash.py", "--kills", "200", *session.posargs, env=env)
    session.run("python", "tests/crash_processes.py", "--kills", "20", *session.posargs, env=env)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff's rules and its formatting, and what a program can check of plain English."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("python", ".ci/prose.py")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Pyright over the package and over what users write with it; all that is public has a type."""
    session.install(".[train,view,testing]", *group("typecheck"))
    session.run("pyright")
    session.run("pyright", "--verifytypes", "oryxstate", "--ignoreexternal")


BUILD_SITE = ["mkdocs", "build", "--strict", "--config-file", ".mkdocs.yml"]


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, built into .site; a broken link is an error."""
    session.install(*group("docs"))
    session.run(*BUILD_SITE)


@nox.session
def site(session: nox.Session) -> None:
    """The documentation, opened in Chromium: `nox -s site -- --pictures FOLDER`."""
    session.install(*group("docs"), *group("site"))
    session.run(*BUILD_SITE)
    session.run("python", "tests/site_browser.py", *session.posargs)


@nox.session
def package(session: nox.Session) -> None:
    """Build wheel and sdist into dist, and install each; for a release, `-- --tag v0.2.0`."""
    session.install(*group("package"))
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build")
    built = sorted(map(str, Path("dist").iterdir()))
    session.run("twine", "check", "--strict", *built)
    fresh = Path(session.create_tmp()) / "fresh"
    session.run("python", "-m", "venv", "--clear", str(fresh))
    python = str(fresh / ("Scripts" if os.name == "nt" else "bin") / "python")
    install = python, "-m", "pip", "install", "--quiet"
    session.run(*install, built[0], external=True)  # with what it requires, and no extra
    for artefact in built:
        session.run(*install, "--force-reinstall", "--no-deps", artefact, external=True)
        # -I: what is installed, not the folder beside this file.
        session.run(python, "-I", "-m", "oryxstate", external=True)
    expect_tag(session, built)


def expect_tag(session: nox.Session, built: list[str]) -> None:
    """End with an error if the tag of a release is not the version that was built."""
    if session.posargs[:1] != ["--tag"]:
        return
    tag = session.posargs[1]
    wheel = f"oryxstate-{tag.removeprefix('v')}-py3-none-any.whl"
    if wheel not in map(os.path.basename, built):
        session.error(f"the tag {tag} asks for {wheel}, but {built} were built: see _version.py")


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
    """Other libraries: pages, layers and solvers; `nox -s peers -- --write` for the table."""
    session.install(".[testing]", *group("peers"))
    arguments = session.posargs or ["--check"]
    session.run("python", "benchmarks/peers/table.py", *arguments, env=compiled(session))
    parity = sorted(map(str, Path("tests/nn").glob("parity_*.py")))
    others = [f"tests/peers_{name}.py" for name in ("solvers", "pages", "laws")]
    session.run("pytest", *parity, *others, env=compiled(session))


@nox.session(python="3.11")
def oryx(session: nox.Session) -> None:
    """The page for those who move from Oryx: its blocks with Oryx, on the last JAX that has it."""
    session.install(*group("oryx"))
    # Without the settings of the tests, which import this library.
    session.run("pytest", "--noconftest", "-W", "ignore", "tests/oryx_page.py")
