"""The count of examples that a class refused, and the error for a class that refuses them all."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis.errors import FailedHealthCheck

_HOPELESS = 45  # refused examples without an accepted one; Hypothesis gives up at 50


def count_taken(failed: dict[type, Any], kind: type) -> None:
    """Remember that an example of a class was taken, so that it may refuse any number."""
    failed[kind] = None


def count_refused(failed: dict[type, Any], kind: type, error: Exception, remedy: str) -> None:
    """Raise if no example of a class was ever taken, rather than let Hypothesis give up.

    Args:
        failed: the number of refused examples of each class; None once one is taken.
        kind: the class.
        error: what it raised.
        remedy: how to give strategies for it.

    Raises:
        FailedHealthCheck: saying what refused them and what to do.
    """
    count = failed.setdefault(kind, 0)
    if count is None:
        return
    failed[kind] = count + 1
    now = settings.default
    patient = now is not None and HealthCheck.filter_too_much in now.suppress_health_check
    if failed[kind] >= _HOPELESS * (10 if patient else 1):
        raise FailedHealthCheck(
            f"no {kind.__name__} could be drawn: all of {failed[kind]} examples were refused, the "
            f"last one with {type(error).__name__}: {str(error).rstrip('.')}. Give strategies for "
            f"the fields that this is about: {remedy}."
        ) from error
