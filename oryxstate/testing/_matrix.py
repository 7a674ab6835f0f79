"""The Python and JAX releases to test a model with."""

from __future__ import annotations

# The oldest and the newest release of JAX that oryxstate supports, for each Python.
_RANGES = {
    "3.11": ("0.10.0", "0.10.2"),
    "3.12": ("0.11.2", "0.12.0.1"),
    "3.13": ("0.11.2", "0.12.0.1"),
}


def jax_matrix() -> list[dict[str, str]]:
    """Return the oldest and the newest JAX for each supported Python, as the matrix of a CI job.

    `pytest --ox-jax-matrix` prints it as JSON.

    Examples:
        >>> from oryxstate.testing import jax_matrix
        >>> jax_matrix()[0]
        {'python': '3.11', 'jax': '0.10.0'}
    """
    return [{"python": p, "jax": jax} for p, releases in _RANGES.items() for jax in releases]
