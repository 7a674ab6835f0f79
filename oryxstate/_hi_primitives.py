"""High-level primitives: `custom_root`, the new checkpoint, and the new custom derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from oryxstate import _tangents


class HiPrimitive:
    """A high-level primitive about to be bound.

    Its `jvp` and its rules take the structured arguments it was called with.
    """

    def __init__(self, params: dict):
        self._prim = prim = params["_prim"]
        self._kind = type(prim).__name__
        # Up to 0.11 not all of them say which effects their jaxprs have.
        jaxprs = [getattr(value, "jaxpr", value) for value in prim.params.values()]
        self.effects = prim.effects.union(*(getattr(x, "effects", ()) for x in jaxprs))
        self.is_root = self._kind == "CustomRoot"
        self.has_vjp = self._kind == "CustomVJPTraced"
        self.generic_batching = getattr(prim, "generic_batching", False)

    def __str__(self) -> str:
        return {"CustomJVPTraced": "custom_jvp", "CustomVJPTraced": "custom_vjp"}.get(
            self._kind, self._kind
        )

    @property
    def checkpoint(self) -> dict | None:
        """The parameters of `remat`, if it is the new `jax.checkpoint`."""
        if self._kind != "RematTraced":
            return None
        prevent_cse = getattr(self._prim, "prevent_cse", True)  # an option from 0.11.1
        return {
            "jaxpr": self._prim.jaxpr,
            "policy": self._prim.policy,
            "prevent_cse": prevent_cse,
        }

    def _structured(self, flat: Sequence) -> Any:
        return jax.tree.unflatten(self._prim.in_tree, flat)

    def run(self, args: Sequence) -> list:
        """Return what it computes, in terms of ordinary primitives."""
        return jax.tree.leaves(self._prim.expand(*self._structured(args)))

    def jvp(self, primals: Sequence, tangents: Sequence) -> tuple[list, list]:
        """Its own derivative."""
        dots = list(map(_tangents.internal, tangents))
        out, out_dot = self._prim.jvp(self._structured(primals), self._structured(dots))
        return jax.tree.leaves(out), [
            _tangents.public(x) for x in jax.tree.leaves(out_dot, is_leaf=_tangents.is_zero)
        ]

    def forward(self, primals: Sequence, perturbed: Sequence[bool]) -> tuple[list, Any]:
        """Run its rule of the forward pass: outputs, and residuals for the backward pass."""
        out, residuals, *_ = self._prim.vjp_fwd(
            self._structured(perturbed), *self._structured(primals)
        )
        return jax.tree.leaves(out), residuals

    def backward(self, residuals: Any, cotangents: Sequence) -> tuple[list, Any]:
        """Run its rule of the backward pass: cotangents of all inputs, and logs."""
        prim, logs = self._prim, None
        bars = jax.tree.unflatten(prim.out_tree, map(_tangents.internal, cotangents))
        if hasattr(prim, "generic_batching"):  # from 0.12
            out, logs = prim.bwd(residuals, bars)
        else:
            out = prim.vjp_bwd_retval(residuals, bars)
        found = jax.tree.leaves(out, is_leaf=_tangents.is_zero)
        missing = len(prim.in_avals_flat) - len(found)  # what it closes over comes first
        return [None] * missing + [None if _tangents.is_zero(x) else x for x in found], logs
