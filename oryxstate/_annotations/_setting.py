"""The setting that turns the check of annotations on and off."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from typing import TYPE_CHECKING

from oryxstate import _lazy
from oryxstate._module import _hook

if TYPE_CHECKING:
    from oryxstate._annotations import _check, _misfits
else:
    _check, _misfits = (
        _lazy.Lazy(f"oryxstate._annotations.{name}") for name in ("_check", "_misfits")
    )

VARIABLE = "ORYXSTATE_CHECK_ANNOTATIONS"


def check_annotations(enabled: bool = True) -> contextlib.AbstractContextManager[None]:
    """Check annotations of modules at run time, from now on or for a `with` block.

    Fields are checked when a module is constructed and in `replace`; arguments and the return value
    of `call`, `call_and_update` and `call_batched` when they run. All names of dimensions in one
    call mean one size each, those in the annotations of the module's fields too. Classes that are
    defined already are checked as well. What JAX has traced before is not run, so not checked.

    The setting is that of the process, whichever thread changes it. Off, which it is at first, it
    costs nothing; the environment variable `ORYXSTATE_CHECK_ANNOTATIONS=1` turns it on.

    Args:
        enabled: whether to check.

    Returns:
        A context manager that ends the setting. Without `with` the setting stays.

    Raises:
        ImportError: if beartype is not installed.

    Examples:
        >>> import jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from jaxtyping import Array, Float
        >>> class Scale(ox.Module):
        ...     scale: Float[Array, " c"] = ox.param()
        ...     def call(self, x: Float[Array, "b c"]) -> Float[Array, "b c"]:
        ...         return x * self.scale
        >>> with ox.check_annotations():
        ...     Scale(jnp.ones(3))(jnp.ones((2, 1)))
        Traceback (most recent call last):
            ...
        oryxstate._errors.AnnotationError: argument `x` of `Scale.call` is annotated
        Float[Array, "b c"], but got float32[2,1], with c=3. Give a value that fits, or
        mend the annotation.
        in Scale.call
    """
    if enabled:
        _misfits.beartype()
    return _Setting(enabled)


class _Setting:
    """One value of the setting; the latest that has not ended holds."""

    def __init__(self, enabled: bool):
        self._enabled, self._entered = enabled, False
        self._begin()

    def _begin(self) -> None:
        with _lock:
            # A setting that nobody refers to never ends, so none before it will hold again.
            final = [i for i, (setting, _) in enumerate(_settings) if setting() is None]
            del _settings[: final[-1] if final else 0]
            _settings.append((weakref.ref(self), self._enabled))
            _observe(self._enabled)

    def __enter__(self) -> None:
        if self._entered:
            self._begin()
        self._entered = True

    def __exit__(self, *_: object) -> None:
        with _lock:
            own = [i for i, (setting, _) in enumerate(_settings) if setting() is self]
            if own:  # else a later setting is final
                del _settings[own[-1]]
            _observe(bool(_settings) and _settings[-1][1])


def _observe(enabled: bool) -> None:
    if enabled:
        _hook.observe(_check.check_fields, _check.run)
    else:
        _hook.observe()


_lock = threading.Lock()
_settings: list[tuple[weakref.ref[_Setting], bool]] = []


def _from_environment() -> bool:
    text = os.environ.get(VARIABLE, "")
    if text.lower() not in ("", "0", "false", "1", "true"):
        raise ValueError(f"{VARIABLE} is 1 or 0, got {text!r}.")
    return text.lower() in ("1", "true")


if _from_environment():
    check_annotations()
