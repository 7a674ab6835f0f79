"""Published sets of laws. Neither the names in a set nor what they mean change any more."""

from __future__ import annotations

LAWS_2026_11 = (
    "pytree_round_trip",
    "no_static_array",
    "no_stale_state",
    "runs",
    "stable_types",
    "purity",
    "reproducible",
    "rng_order",
    "jit_is_eager",
    "no_retrace",
    "annotations_hold",
    "update_round_trip",
    "serialization_round_trip",
    "call_is_part",
    "donation_safe",
    "checkpoint_is_plain",
    "scan_is_loop",
    "vmap_is_loop",
    "finite_gradient",
    "gradient_is_difference",
    "gradient_across_calls",
    "float64_agreement",
)
"""The laws of November 2026; `laws=LAWS_2026_11` checks these, whatever comes later."""

SETS: dict[str, tuple[str, ...]] = {"2026.11": LAWS_2026_11}
"""All sets by version, the newest last: that is what is checked unless laws are chosen."""
