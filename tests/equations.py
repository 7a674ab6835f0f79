"""Counts of the equations in a program."""

from collections import Counter

from jax.extend.core import jaxprs_in_params


def counted(jaxpr) -> Counter:
    """How often each primitive stands in a program, with all that is inside."""
    found = Counter()
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        found[str(eqn.primitive)] += 1
        for inner in jaxprs_in_params(eqn.params):
            found += counted(inner)
    return found
