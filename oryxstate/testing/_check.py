"""The function `check_module`, which checks all laws on a module."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection
from typing import Any

import hypothesis
import jax
from hypothesis import strategies as st

from oryxstate import _tree
from oryxstate.testing._drawn import cases, is_drawn
from oryxstate.testing._laws import FOUNDATIONS, LAWS, Case, LawError, NotApplicable

EXAMPLES = 10  # drawn modules, each with inputs


@dataclasses.dataclass(frozen=True)
class Report:
    """The laws that `check_module` found to hold.

    Attributes:
        checked: the names of the laws that hold.
        not_applicable: the laws that do not apply to the module, with the reason.
    """

    checked: tuple[str, ...]
    not_applicable: dict[str, str]

    def __str__(self) -> str:
        lines = [f"{len(self.checked)} laws hold: {', '.join(self.checked)}."]
        lines += [f"{name}: not applicable, {why}." for name, why in self.not_applicable.items()]
        return "\n".join(lines)


def check_module(
    subject: Any,
    *args: Any,
    laws: Collection[str] | None = None,
    skip: Collection[str] = (),
    batched: bool | None = None,
    tolerance: float | None = None,
    **kwargs: Any,
) -> Report:
    """Check the laws of modules on a module, with these inputs or drawn ones.

    Args:
        subject: a module, or anything else that `oryxstate.call_and_update` takes; or a class of
            modules, a `TemplateExample`, or a strategy, from which modules are drawn with inputs.
        *args: the arguments of its call; none for drawn modules, whose inputs are drawn by their
            annotations.
        laws: the names of the laws to check, all of `LAWS` by default.
        skip: the names of laws to leave out.
        batched: whether to map the call over examples, for a module that only trains in a
            `jax.vmap`, as with `nn.BatchNorm`; arrays in `args` then have a leading axis. By
            default drawn modules are, if there is such a layer in them, and others are not.
        tolerance: how far two floating-point results may be apart, in parts of the largest number
            of the array, or of 1; by default two thirds of the digits of their dtype agree.
        **kwargs: the keywords of its call, such as `training` and `rng`.

    Returns:
        Which laws were checked, and which do not apply to this module and why.

    Raises:
        LawError: if a law does not hold, with its name, the leaf, both values and code that
            reproduces it; one error for all failures.
        ValueError: for a law that does not exist.
        TypeError: if the subject is not a module, or for arguments of drawn modules.

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
    names = chosen(laws, skip)
    if is_drawn(subject):
        if args or kwargs:
            raise TypeError(
                "check_module draws the inputs of modules that it draws. Give a module to check it "
                "on inputs of your own, or use `laws(subject, inputs)`."
            )
        return _check_drawn(cases(subject, batched=batched, tolerance=tolerance), names)
    _expect_arrays(subject)
    return _check(Case(subject, args, kwargs, bool(batched), tolerance), names)


def _check(case: Case, names: list[str]) -> Report:
    checked, not_applicable, errors = [], {}, []
    for name in names:
        try:
            LAWS[name](case)
            checked.append(name)
        except NotApplicable as reason:
            not_applicable[name] = str(reason)
        except LawError as error:
            errors.append(error)
            if FOUNDATIONS.keys() & {name, *error.laws}:
                break
    if errors:
        raise _together(errors) from errors[0].__cause__
    return Report(tuple(checked), not_applicable)


def _check_drawn(drawn: st.SearchStrategy[Case], names: list[str]) -> Report:
    """Check the same modules and inputs each time. A law applies if it applies to one of them."""
    reports: list[Report] = []

    @hypothesis.settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    @hypothesis.given(drawn)
    def each(case: Case) -> None:
        reports.append(_check(case, names))

    each()
    checked = {name for report in reports for name in report.checked}
    not_applicable = {k: v for report in reports for k, v in report.not_applicable.items()}
    return Report(
        tuple(name for name in names if name in checked),
        {name: not_applicable[name] for name in names if name not in checked},
    )


def _expect_arrays(module: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(module):
        if not _tree.is_array(leaf):
            raise TypeError(
                f"`{_tree.keystr(path)}` of {type(module).__name__} is {leaf!r}, no array, so JAX "
                "does not transform functions of it. Put the model into a field of an "
                "`ox.Module`, which tells its arrays from the rest."
            )


def chosen(laws: Collection[str] | None, skip: Collection[str]) -> list[str]:
    """Return the names of the chosen laws, in order."""
    for name in [*(laws or ()), *skip]:
        if name not in LAWS:
            near = difflib.get_close_matches(name, LAWS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"there is no law {name!r}.{hint} The laws are: {', '.join(LAWS)}.")
    return [name for name in LAWS if (laws is None or name in laws) and name not in skip]


def _together(errors: list[LawError]) -> LawError:
    if len(errors) == 1:
        return errors[0]
    names = tuple(dict.fromkeys(name for error in errors for name in error.laws))
    texts = "\n\n".join(map(str, errors))
    return LawError(f"{len(errors)} laws do not hold: {', '.join(names)}.\n\n{texts}", names)
