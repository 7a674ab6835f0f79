"""All laws, in the order in which they are checked."""

from __future__ import annotations

from collections.abc import Callable

from oryxstate.testing._laws._across_calls import gradient_across_calls
from oryxstate.testing._laws._annotated import annotations_hold
from oryxstate.testing._laws._calls import (
    no_stale_state,
    purity,
    reproducible,
    rng_order,
    runs,
    stable_types,
)
from oryxstate.testing._laws._case import Case, meaning
from oryxstate.testing._laws._faults import LawError, NotApplicable
from oryxstate.testing._laws._gradients import (
    finite_gradient,
    float64_agreement,
    gradient_is_difference,
)
from oryxstate.testing._laws._sets import LAWS_2026_11, SETS
from oryxstate.testing._laws._transformed import (
    call_is_part,
    checkpoint_is_plain,
    donation_safe,
    jit_is_eager,
    no_retrace,
    scan_is_loop,
    vmap_is_loop,
)
from oryxstate.testing._laws._trees import (
    no_static_array,
    pytree_round_trip,
    serialization_round_trip,
    update_round_trip,
)

Law = Callable[[Case], None]

FOUNDATIONS: dict[str, Law] = {
    law.__name__: law
    for law in (
        pytree_round_trip,
        no_static_array,
        no_stale_state,  # first of those that call: a cache must not hold what others gave it
        runs,
        stable_types,
        purity,
        reproducible,
        rng_order,
        jit_is_eager,
        no_retrace,
    )
}
"""Laws without which the others mean nothing: the first that does not hold ends a check."""

LAWS: dict[str, Law] = FOUNDATIONS | {
    law.__name__: law
    for law in (
        annotations_hold,
        update_round_trip,
        serialization_round_trip,
        call_is_part,
        donation_safe,
        checkpoint_is_plain,
        scan_is_loop,
        vmap_is_loop,
        finite_gradient,
        gradient_is_difference,
        gradient_across_calls,
        float64_agreement,
    )
}
"""All laws by name, in the order in which they are checked."""

__all__ = [
    "FOUNDATIONS",
    "LAWS",
    "LAWS_2026_11",
    "SETS",
    "Case",
    "Law",
    "LawError",
    "NotApplicable",
    "meaning",
]
