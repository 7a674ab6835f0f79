"""Which layers are there? Every one, with a configuration and the spec of its input."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from oryxstate import ArraySpec, nn


class Entry(NamedTuple):
    """A layer of the catalogue.

    Attributes:
        template: how it is configured.
        specs: of its inputs, for one example.
        batched: whether it only trains in a `vmap` over examples.
        random: whether a call draws random numbers while training.
        integer: whether its input holds integers, of which there is no derivative.
    """

    template: Any
    specs: tuple[ArraySpec, ...]
    batched: bool = False
    random: bool = False
    integer: bool = False


def entry(template: Any, *shapes: tuple[int, ...], **options: Any) -> Entry:
    """An entry whose inputs are float32 of these shapes."""
    return Entry(template, tuple(map(ArraySpec, shapes)), **options)


CATALOGUE: dict[str, Entry] = {
    "Dense": entry(nn.Dense.of(4), (3,)),
    "Dense without bias": entry(nn.Dense.of(4, use_bias=False), (2, 3)),
    "Dropout": entry(nn.Dropout.of(0.5), (8,), random=True),
    "BatchNorm": entry(nn.BatchNorm.of(), (3,), batched=True),
    "BatchNorm with spatial axes": entry(nn.BatchNorm.of(), (4, 4, 3), batched=True),
    "Serial": entry(nn.Dense.of(4) >> jax.nn.tanh >> nn.Dense.of(2), (3,)),
    "FanOut": entry(nn.FanOut.of(nn.Dense.of(4), jax.nn.tanh), (3,)),
    "Parallel": entry(nn.Parallel.of(nn.Dense.of(4), jax.nn.tanh), (3,), (2,)),
    "Residual": entry(nn.Residual.of(nn.Dense.of(3)), (3,)),
    "Residual with a shortcut": entry(nn.Residual.of(nn.Dense.of(2), nn.Dense.of(2)), (3,)),
    "Flatten": entry(nn.Flatten.of(), (2, 3)),
    "Reshape": entry(nn.Reshape.of(3, -1), (2, 6)),
    "Lambda": entry(nn.Lambda.of(jax.nn.relu), (3,)),
}
