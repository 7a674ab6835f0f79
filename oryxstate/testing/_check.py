"""The function `check_module`, which checks all laws on a model."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from hypothesis import strategies as st

from oryxstate.testing._drawn import cases, is_drawn
from oryxstate.testing._laws import FOUNDATIONS, LAWS, Case, LawError
from oryxstate.testing._search import SECONDS, SEED, Draws, search_again, settings_of
from oryxstate.testing._verdicts import (
    HOLDS,
    Report,
    Verdict,
    names_of,
    report,
    together,
    unexpected,
    verdict,
)

EXAMPLES = 10  # drawn modules, each with inputs


def check_module(
    subject: Any,
    *args: Any,
    laws: Collection[str] | None = None,
    skip: Collection[str] = (),
    expected_failures: Mapping[str, str] | None = None,
    batched: bool | str | None = None,
    tolerance: float | None = None,
    **kwargs: Any,
) -> Report:
    """Check the laws on a model, with these inputs or drawn ones.

    Args:
        subject: a model: a module, or anything else that `oryxstate.call_and_update` takes; an
            Equinox module, a callable pytree or a function; a Flax NNX or Linen module; a function
            that Haiku transformed; an optax gradient transformation; `Functions(init, apply)`; or
            what `adapt` has an adapter for. Or a class of modules, a `TemplateExample`, or a
            strategy, from which models are drawn with inputs.
        *args: the arguments of its call; none for drawn modules, whose inputs are drawn by their
            annotations. An `equinox.nn.State` among them is threaded through the calls.
        laws: the names of the laws to check, all of `LAWS` by default.
        skip: the names of laws to leave out.
        expected_failures: the names of laws that are known not to hold, with the reason. A law that
            holds all the same is an error.
        batched: whether to map the call over examples, for a module that only trains in a
            `jax.vmap`, as with `nn.BatchNorm`; arrays in `args` then have a leading axis. A string
            names the mapped axis. By default drawn modules are mapped, if there is such a layer in
            them, and others are not.
        tolerance: how far two floating-point results may be apart, in parts of the largest number
            of the array, or of 1; by default two thirds of the digits of their dtype agree.
        **kwargs: the keywords of its call, such as `training` and `rng`.

    Returns:
        Which laws hold, which fail as expected, and which do not apply to this model and why.

    Raises:
        LawError: if a law does not hold, with its name, the leaf, both values and code that
            reproduces it; one error for all failures. Also if none of the laws applies.
        ValueError: for a law that does not exist.
        TypeError: if there is no adapter for the subject, or for arguments of drawn modules.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate.testing import check_module
        >>> class Mean(ox.Module):
        ...     total: jax.Array = ox.state()
        ...     def call(self, x):
        ...         self.assign(total=self.total + x)
        ...         return self.total
        >>> report = check_module(Mean(jnp.array(0.0)), jnp.array(2.0))
        >>> "scan_is_loop" in report.checked
        True
    """
    expected = expected_failures or {}
    names = chosen(laws, skip, expected)
    if is_drawn(subject):
        if args or kwargs:
            raise TypeError(
                "check_module draws the inputs of modules that it draws. Give a module to check it "
                "on inputs of your own, or use `laws(subject, inputs)`."
            )
        drawn = cases(subject, batched=batched, tolerance=tolerance)
        return _check_drawn(drawn, names, expected)
    case = Case(subject, args, kwargs, batched or False, tolerance)
    verdicts, errors = _check(case, names, expected)
    if errors:
        raise _together(list(errors.values()))
    return _strict(verdicts, expected, *names_of(case, subject))


def _check(
    case: Case, names: list[str], expected: Mapping[str, str]
) -> tuple[dict[str, Verdict], dict[str, LawError]]:
    """Return the verdicts on one case, and the errors of laws that do not hold."""
    found: dict[str, Verdict] = {}
    errors: dict[str, LawError] = {}
    for name in names:
        try:
            found[name] = verdict(name, LAWS[name], case, expected)
        except LawError as error:
            errors[name] = error
            if FOUNDATIONS.keys() & {name, *error.laws}:
                break
    return found, errors


def _check_drawn(
    drawn: st.SearchStrategy[Case], names: list[str], expected: Mapping[str, str]
) -> Report:
    """Check the same modules and inputs each time. A law applies if it applies to one of them."""
    settings = settings_of(EXAMPLES, database=None)
    all_cases = Draws(drawn).cases(settings, SEED)
    found: list[dict[str, Verdict]] = []
    for case in all_cases:
        verdicts, errors = _check(case, names, expected)
        found.append(verdicts)
        if errors:
            seconds = SECONDS / len(errors)
            raise _together(
                [_smallest(name, error, drawn, expected, seconds) for name, error in errors.items()]
            )
    whole = {name: together(verdicts[name] for verdicts in found) for name in names}
    return _strict(whole, expected, *names_of(all_cases[0], None))


def _smallest(
    name: str,
    error: LawError,
    drawn: st.SearchStrategy[Case],
    expected: Mapping[str, str],
    seconds: float,
) -> LawError:
    """Return the error of the smallest case that breaks a law; no other law is checked."""

    def check(case: Case) -> None:
        verdict(name, LAWS[name], case, expected)

    settings = settings_of(EXAMPLES, database=None)
    try:
        search_again(error, check, drawn, settings, SEED, seconds=seconds)
    except LawError as smaller:
        return smaller
    raise AssertionError("a search raises")


def _strict(
    verdicts: dict[str, Verdict], expected: Mapping[str, str], model: str, label: str
) -> Report:
    """Collect verdicts, and refuse a law that holds although it is expected to fail."""
    holds = [name for name in expected if name in verdicts and verdicts[name].outcome == HOLDS]
    if holds:
        raise _together([unexpected(name, model, expected[name]) for name in holds])
    found = report(verdicts, model, label)
    if verdicts and not found.ran:
        reasons = [f"{name}: not applicable, {why}." for name, why in found.not_applicable.items()]
        raise LawError("\n  ".join([f"no law ran on {model}.", *reasons]))
    return found


def chosen(
    laws: Collection[str] | None, skip: Collection[str], expected: Collection[str] = ()
) -> list[str]:
    """Return the names of the chosen laws, in order."""
    for name in [*(laws or ()), *skip, *expected]:
        if name not in LAWS:
            near = difflib.get_close_matches(name, LAWS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"there is no law {name!r}.{hint} The laws are: {', '.join(LAWS)}.")
    return [name for name in LAWS if (laws is None or name in laws) and name not in skip]


def _together(errors: list[LawError]) -> LawError:
    """Return one error for several, caused by what caused the first."""
    if len(errors) == 1:
        return errors[0]
    names = tuple(dict.fromkeys(name for error in errors for name in error.laws))
    texts = "\n\n".join(map(str, errors))
    whole = LawError(f"{len(errors)} laws do not hold: {', '.join(names)}.\n\n{texts}", names)
    whole.__cause__ = errors[0].__cause__
    return whole
