"""Settings of all tests: eight CPU devices, strict promotion, one Hypothesis profile.

Programs are small and run once or twice, so XLA compiles them fast rather than well. The numbers S1
to S18 in docstrings of tests are those of the statements in docs/explanation/semantics.md.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
_DEVICES = "--xla_force_host_platform_device_count=8"
if _DEVICES not in os.environ.get("XLA_FLAGS", ""):  # read once, when JAX is first imported
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}".strip()

import jax  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_enable_x64", False)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

settings.register_profile(
    "oryxstate",
    derandomize="CI" in os.environ,
    deadline=None,  # the first example compiles
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("oryxstate")
