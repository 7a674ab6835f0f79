"""The setting that turns the check of annotations on and off, and its cost when off."""

import operator
import os
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from annotated import Scale, net

import oryxstate as ox
from oryxstate._annotations import _check, _setting
from oryxstate._module import _hook

X = jnp.ones((1, 1))


def checks() -> bool:
    """Whether a wrong call is refused."""
    try:
        Scale(jnp.ones(1))(X, times=1.0)
    except ox.AnnotationError:
        return True
    return False


@pytest.fixture(autouse=True)
def off():
    ox.check_annotations(False)
    yield
    ox.check_annotations(False)


def test_a_call_is_for_good_and_a_block_ends():
    assert not checks()
    ox.check_annotations()
    assert checks()
    ox.check_annotations(False)
    assert not checks()
    with ox.check_annotations() as nothing:
        assert nothing is None and checks()
        with ox.check_annotations(False):
            assert not checks()
        assert checks()
    assert not checks()


def test_a_block_ends_whatever_happens_in_it():
    with pytest.raises(ZeroDivisionError), ox.check_annotations():
        _ = 1 / 0
    assert not checks()


def test_a_setting_for_good_inside_a_block_stays():
    with ox.check_annotations(False):
        ox.check_annotations()
        assert checks()
    assert checks()


def test_one_setting_for_two_blocks():
    setting = ox.check_annotations()
    with setting, setting:
        assert checks()
    assert not checks()
    with setting:
        assert checks()
    assert not checks()


def test_settings_for_good_do_not_pile_up():
    for i in range(50):
        ox.check_annotations(i % 2 == 0)
    assert len(_setting._settings) < 4


def test_blocks_of_threads_that_overlap():
    """The first ends while the second is open, which stays as it is."""
    entered, ended = threading.Event(), threading.Event()
    seen = []

    def second():
        with ox.check_annotations():
            entered.set()
            ended.wait()
            seen.append(checks())

    thread = threading.Thread(target=second)
    with ox.check_annotations():
        thread.start()
        entered.wait()
    ended.set()
    thread.join()
    assert seen == [True] and not checks()


def test_each_thread_has_sizes_of_its_own():
    wrong = []

    def run(n):
        for _ in range(20):
            if net(n, n)(jnp.ones((2, n))).shape != (n,):
                wrong.append(n)

    with ox.check_annotations():
        threads = [threading.Thread(target=run, args=(n,)) for n in (1, 2, 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_classes_are_the_same_on_and_off():
    names = "call", "call_and_update", "update", "__call__", "__init__", "replace"
    before = [getattr(Scale, name) for name in names], dict(vars(Scale))
    with ox.check_annotations():
        assert ([getattr(Scale, name) for name in names], dict(vars(Scale))) == before
        assert checks()
    assert ([getattr(Scale, name) for name in names], dict(vars(Scale))) == before


def test_off_the_annotations_are_not_looked_at(monkeypatch):
    def asked(*_, **__):
        raise AssertionError("checked although it is off")

    for name in ("run", "check_fields", "_in_scope"):
        monkeypatch.setattr(_check, name, asked)
    assert _hook.made is None and _hook.run is operator.call  # no Python frame of its own
    model = jax.jit(ox.update)(net(1), X)
    assert model.layers[0].replace(name="a").count == 1


ROOT = str(Path(ox.__file__).parents[1])


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    """A fresh interpreter that runs this."""
    path = os.pathsep.join([ROOT, *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )


def test_beartype_is_imported_when_it_is_turned_on():
    run = python(
        "import sys, oryxstate as ox, jax.numpy as jnp\n"
        "class A(ox.Module):\n"
        "    x: jnp.ndarray\n"
        "    def call(self): return self.x\n"
        "A(jnp.ones(2))(), ox.check_annotations(False)\n"
        "print('beartype' in sys.modules, end=' ')\n"
        "ox.check_annotations()\n"
        "print('beartype' in sys.modules)"
    )
    assert run.stdout.split() == ["False", "True"], run.stderr


WITHOUT = "import sys; sys.modules['beartype'] = None; import oryxstate as ox; "
LATER = "ox.check_annotations(False); print('works off'); ox.check_annotations()"


@pytest.mark.parametrize(("variable", "printed"), [("0", "works off\n"), ("1", "")])
def test_without_beartype(variable, printed):
    run = python(WITHOUT + LATER, ORYXSTATE_CHECK_ANNOTATIONS=variable)
    assert run.stdout == printed
    assert run.stderr.splitlines()[-1] == (
        "ImportError: checking annotations needs beartype. Install it, `pip install "
        "oryxstate[testing]`, or leave the checks off: no `ox.check_annotations()`, no "
        "ORYXSTATE_CHECK_ANNOTATIONS=1."
    )


@pytest.mark.parametrize(
    ("value", "on"), [("1", True), ("True", True), ("0", False), ("false", False), ("", False)]
)
def test_the_environment_variable(value, on, monkeypatch):
    monkeypatch.setenv("ORYXSTATE_CHECK_ANNOTATIONS", value)
    assert _setting._from_environment() is on
    monkeypatch.delenv("ORYXSTATE_CHECK_ANNOTATIONS")
    assert not _setting._from_environment()


def test_a_wrong_environment_variable(monkeypatch):
    monkeypatch.setenv("ORYXSTATE_CHECK_ANNOTATIONS", "maybe")
    with pytest.raises(ValueError, match="CHECK_ANNOTATIONS is 1 or 0, got 'maybe'"):
        _setting._from_environment()
