"""Programs run as users run them: without the strictness of the other tests."""

import jax
import pytest


@pytest.fixture(autouse=True)
def _promotion_as_in_a_user_program():  # optax needs it too
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
