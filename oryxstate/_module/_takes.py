"""The keywords that functions and modules take, and how those of a call are divided among them."""

from __future__ import annotations

import difflib
import inspect
import weakref
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

from oryxstate import _signatures
from oryxstate._module import _pytree

RNG = "rng"
"""The keyword of which every module gets a key of its own."""

EVERYWHERE = ("training", RNG)
"""The keywords that every call takes, and that go on to the modules below."""


class Taken(NamedTuple):
    """The keywords that a function takes.

    Attributes:
        names: of its parameters that can be given by name.
        keyword_only: those that can be given by name only, and whether they must be.
        is_open: whether it takes any other keyword too.
    """

    names: frozenset[str]
    keyword_only: dict[str, bool]
    is_open: bool

    def accepts(self, name: str) -> bool:
        """Tell whether the function can be given a keyword of this name."""
        return self.is_open or name in self.names


ANY = Taken(frozenset(), {}, True)
NONE = Taken(frozenset(), {}, False)


def taken_by(function: Callable[..., Any]) -> Taken:
    """Return the keywords that a function takes; `ANY` if it has no signature."""
    plain = getattr(function, "__func__", function)
    try:
        if plain not in _known:
            _known[plain] = _taken_by(plain)
        return _known[plain]
    except TypeError:  # without a hash or weak references
        return _taken_by(plain)


_known: weakref.WeakKeyDictionary[Any, Taken] = weakref.WeakKeyDictionary()


def _taken_by(function: Callable[..., Any]) -> Taken:
    try:
        parameters = _signatures.signature_of(function).parameters.values()
    except (TypeError, ValueError):  # built in, without a signature
        return ANY
    by_name = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    return Taken(
        frozenset(p.name for p in parameters if p.kind in by_name),
        {p.name: p.default is p.empty for p in parameters if p.kind is p.KEYWORD_ONLY},
        any(p.kind is p.VAR_KEYWORD for p in parameters),
    )


def taken_inside(tree: Any, *, below: bool = False) -> set[str]:
    """Collect the keywords that the calls of modules in a pytree take, at any depth.

    Args:
        tree: a module, or any pytree that holds modules.
        below: whether to leave out those of `tree` itself.
    """
    found = _pytree.modules(tree)
    if below:
        next(found)
    return {name for _, module in found for name in module.__keywords__}


def keywords(model: Any) -> dict[str, bool]:
    """Return the keywords that a model takes from where it is called.

    These are the keyword-only parameters of the calls of all modules in it. `training` and `rng`
    may be given to every model, also where no module takes them.

    Args:
        model: a module, or any pytree that holds modules.

    Returns:
        The names, and whether a call in the model needs a value. A parent may give it: then the
        keyword need not be given to the model.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn
        >>> template = nn.Dense.of(4) >> nn.BatchNorm.of() >> nn.Dropout.of(0.5)
        >>> model = ox.init(template)(jax.random.key(0), jnp.ones(3))
        >>> ox.keywords(model)
        {'rng': False, 'training': True}
    """
    found: dict[str, bool] = {}
    for _, module in _pytree.modules(model):
        for name, required in module.__keywords__.items():
            found[name] = found.get(name, False) or required
    return dict(sorted(found.items()))


def split(
    taken: Taken,
    inside: Callable[[], set[str]],
    kwargs: dict,
    called: Callable[[], str],
    completed: Collection[str] = (),
) -> tuple[dict, dict]:
    """Divide the keywords of a call into those of the called function and those for what is below.

    Args:
        taken: what the called function takes.
        inside: returns what the modules take that get keywords from this call.
        kwargs: the keywords.
        called: returns what is called, in words.
        completed: the keywords that the called function gets as a module below does.

    Raises:
        TypeError: for a keyword that nothing takes, with the nearest one that something does.
    """
    own, down = {}, {}
    for name, value in kwargs.items():
        goes_on = name in EVERYWHERE
        if taken.accepts(name) and not (goes_on and name in completed):
            own[name] = value
        else:
            goes_on = True
        if goes_on:
            down[name] = value
    if not down:
        return own, down
    known = inside() | set(completed)
    for name in down:
        if name not in known and name not in EVERYWHERE:
            raise TypeError(_unknown(name, called(), {*known, *taken.names, *EVERYWHERE}))
    return own, {name: value for name, value in down.items() if name in known}


def _unknown(name: str, called: str, known: Iterable[str]) -> str:
    names = sorted(set(known) - {"self"})
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean `{near[0]}`?" if near else ""
    return (
        f"neither {called} nor a module in it takes a keyword `{name}`.{hint} They take: "
        f"{', '.join(names)}."
    )
