"""Cases and programs that laws share, and the search for a smaller failing case."""

from __future__ import annotations

import types
from typing import Any

import equinox as eqx
import hypothesis
import jax
import jax.numpy as jnp
import optax
import pytest
from hypothesis.database import InMemoryExampleDatabase
from jaxtyping import Array, Float

import oryxstate as ox
from oryxstate.testing import LAWS, Case, Functions, LawError, adapt, cases, check_module
from oryxstate.testing._decorator import _seed
from oryxstate.testing._laws._conditioning import spread
from oryxstate.testing._search import Draws, replay, search, search_again, settings_of


class Affine(ox.Module):
    kernel: Float[Array, "m n"] = ox.param()

    def call(self, x: Float[Array, "m"], *, sign: int = 1, shift: Any = 0.0):
        return sign * x @ self.kernel + shift


SETTINGS = settings_of(20, database=None)


def test_cases_are_drawn_once_and_alike():
    draws = Draws(cases(Affine))
    drawn = draws.cases(SETTINGS, 0)
    assert draws.cases(SETTINGS, 0) is drawn and len(drawn) == 20
    again = Draws(cases(Affine)).cases(SETTINGS, 0)
    assert [repr(case) for case in again] == [repr(case) for case in drawn]
    other = Draws(cases(Affine)).cases(SETTINGS, 1)
    assert [repr(case) for case in other] != [repr(case) for case in drawn]


def test_cases_have_few_shapes_and_one_store_of_programs():
    drawn = Draws(cases(Affine, lambda module: (jnp.ones(len(module.kernel)),))).cases(SETTINGS, 0)
    assert {case.module.kernel.shape for case in drawn} == {(1, 1), (2, 3)}
    assert len({id(case.programs) for case in drawn}) == 1


def test_cases_that_differ_in_arrays_share_a_program():
    one, x = Affine(jnp.ones((2, 3))), jnp.ones(2)
    case = Case(one, (x,), {"sign": 1, "shift": jnp.zeros(3)})
    twin = Case(Affine(2 * one.kernel), (3 * x,), {"sign": 1, "shift": jnp.ones(3)})
    other = Case(one, (x,), {"sign": -1, "shift": jnp.zeros(3)})
    for each in (twin, other):
        object.__setattr__(each, "programs", case.programs)
    assert twin.jitted.func is case.jitted.func is not other.jitted.func
    results = [each.jitted(each.module, each.inputs)[0] for each in (case, twin, other)]
    assert [y.tolist() for y in results] == [[2] * 3, [13] * 3, [-2] * 3]


class Foreign(eqx.Module):
    weight: Float[Array, "n"]
    power: int = 2

    def __call__(self, x: Float[Array, "n"], **options):
        return self.weight * x**self.power


def scaled(key, x):
    return {"scale": x[0]}


def scale(params, x):
    return params["scale"] * x


FOREIGN = {
    "pytree": (Foreign(jnp.ones(2)), Foreign(jnp.zeros(2)), Foreign(jnp.ones(2), 3)),
    "pair": ((scaled, scale), Functions(scaled, scale), Functions(scaled, lambda p, x: x)),
    "ours": ([Foreign(jnp.ones(2)), Affine(jnp.ones((2, 3)))],) * 2
    + ([Foreign(jnp.ones(2), 3), Affine(jnp.ones((2, 3)))],),
    "optimizer": (optax.scale(2.0),) * 2 + (optax.scale(3.0),),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_models_of_other_libraries_share_programs(kind):
    x = jnp.ones(2)
    case, twin, other = (Case(model, (x,)).of_laws for model in FOREIGN[kind])
    for each in (twin, other):
        object.__setattr__(each, "programs", case.programs)
    assert twin.jitted.func is case.jitted.func is not other.jitted.func


def test_keywords_of_models_are_not_those_of_adapters():
    given = dict.fromkeys(("call", "name", "rest", "values"), 1)
    adapted = adapt(Foreign(jnp.ones(2)), (jnp.ones(2),), given)
    assert adapted.call(adapted.values, jnp.ones(2), **given)[0].tolist() == [1, 1]


def test_signed_zeros_have_programs_of_their_own():
    one, x = Affine(jnp.ones((2, 3))), jnp.ones(2)
    case, other = (Case(one, (x,), {"shift": shift}) for shift in (0.0, -0.0))
    object.__setattr__(other, "programs", case.programs)
    assert case.jitted.func is case.jitted.func is not other.jitted.func


def test_constants_without_a_hash_are_a_case_of_their_own():
    class Odd:
        __hash__ = None

    odd = Odd()

    class Takes(ox.Module):
        def call(self, x, odd):
            return x

    case, other = (Case(Takes(), (jnp.ones(2), each)) for each in (odd, Odd()))
    object.__setattr__(other, "programs", case.programs)
    assert case.jitted.func is case.jitted.func is not other.jitted.func


def at_most(limit: float) -> Any:
    def check(case: Case) -> None:
        if float(case.module.kernel.max()) > limit:
            raise LawError(f"above {limit}", ("runs",))

    return check


def test_the_smallest_failing_case_is_found():
    with pytest.raises(LawError, match="above 2") as caught:
        search(at_most(2), cases(Affine), SETTINGS, 0)
    assert "kernel=jnp.array([[3.0]], 'float32')" in str(caught.value.__notes__)


def test_a_search_ends_in_time():
    seen = []

    def check(case):
        seen.append(case)
        at_most(2)(case)

    with pytest.raises(LawError, match="above 2") as caught:
        search(check, cases(Affine), SETTINGS, 0, seconds=0.0)
    assert caught.value.__notes__[-1] == (
        "The search for a smaller example was stopped after 0 seconds."
    )
    assert len(seen) <= 20  # none after the first that failed


def test_what_does_not_fail_again_is_told():
    error = LawError("once", ("runs",))
    with pytest.raises(LawError, match="once") as caught:
        search_again(error, at_most(100), cases(Affine), SETTINGS, 0)
    assert "drawn again, pass: what ran before matters" in caught.value.__notes__[0]

    failing = iter([True])

    def flaky(case):
        if next(failing, False):
            raise LawError("only once", ("runs",))

    with pytest.raises(LawError, match="only once") as caught:
        search(flaky, cases(Affine), SETTINGS, 0)
    assert "drawn again, pass" in caught.value.__notes__[-1]


def test_failures_are_kept_and_replayed_by_key():
    kept = hypothesis.settings(SETTINGS, database=InMemoryExampleDatabase())
    strategy = cases(Affine)
    replay(at_most(2), strategy, kept, "one")  # nothing is kept
    with pytest.raises(LawError):
        search(at_most(2), strategy, kept, 0, "one")
    with pytest.raises(LawError):
        replay(at_most(2), strategy, kept, "one")
    replay(at_most(2), strategy, kept, "another")
    replay(at_most(100), strategy, kept, "one")


def test_only_the_failed_law_is_checked_again(monkeypatch):
    counts = dict.fromkeys(("runs", "stable_types"), 0)

    def counted(name):
        law = LAWS[name]

        def check(case):
            counts[name] += 1
            law(case)

        return check

    for name in counts:
        monkeypatch.setitem(LAWS, name, counted(name))

    class Rejects(ox.Module):
        def call(self, x: Float[Array, "n"]):
            if x.max() > 1:
                raise ValueError("large")
            return x

    with pytest.raises(LawError, match="large"):
        check_module(Rejects, laws=list(counts))
    assert counts["runs"] > counts["stable_types"] < 10


@pytest.mark.parametrize(
    ("given", "seed"),
    [
        ({}, 0),
        ({"--ox-seed": "7"}, 7),
        ({"--ox-seed": "random"}, None),
        ({"--hypothesis-seed": "3", "--ox-seed": "7"}, None),
    ],
)
def test_the_seed(given, seed):
    config = types.SimpleNamespace(getoption=lambda name, default: given.get(name, default))
    assert _seed(config) == seed


# Conditioning ---------------------------------------------------------------------------------


class Solves(ox.Module):
    """Right, and ill-conditioned for some matrices."""

    matrix: Float[Array, "n n"]

    def call(self, x: Float[Array, "n"]) -> Float[Array, "n"]:
        return jnp.linalg.solve(self.matrix, x)


class Variance(ox.Module):
    """Cancels where another formula would not."""

    def call(self, x: Float[Array, "n"]):
        return (x**2).mean() - x.mean() ** 2


def test_an_ill_conditioned_model_is_no_fault():
    hilbert = 1 / (1 + jnp.add.outer(jnp.arange(5.0), jnp.arange(5.0)))
    report = check_module(Solves(hilbert), jnp.arange(5.0), laws=["float64_agreement"])
    assert report.checked == ("float64_agreement",)


def test_an_ill_conditioned_model_may_have_numbers_in_float64():
    hilbert = (1 / (1 + jnp.add.outer(jnp.arange(5.0), jnp.arange(5.0)))).astype(jnp.float32)

    class Casts(Solves):
        def call(self, x):
            return jnp.linalg.solve(self.matrix, x.astype(self.matrix.dtype))

    with jax.enable_x64(True):
        x = jnp.arange(5.0, dtype=jnp.float64)
        report = check_module(Casts(hilbert), x, laws=["float64_agreement"])
    assert report.checked == ("float64_agreement",)


def test_a_computation_that_loses_digits_is():
    found = r"The computation loses digits, .*`tolerance=`, or `skip=\['float64_agreement'\]`"
    with pytest.raises(LawError, match=found):
        check_module(Variance(), 1000 + jnp.arange(5.0) / 7, laws=["float64_agreement"])


def test_spread():
    (root, step, count), (total,) = (
        spread(function, jnp.float32(1), 1e-3)
        for function in (
            lambda x: (jnp.log(x - 1), jnp.sign(x - 1), jnp.int32(x)),
            lambda x: (1000 * x,),
        )
    )
    assert root == jnp.inf and step == 1 and count == 0
    assert total == pytest.approx(1, rel=0.01)
