"""The case that a law is checked on, and the decorator of laws."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, overload

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from oryxstate import _api, _grad, _tree
from oryxstate._module._base import Module
from oryxstate.testing._adapters import KINDS, Adapted, Kind, NoAdapter, adapt
from oryxstate.testing._differences import Difference, difference, is_key
from oryxstate.testing._laws import _losses
from oryxstate.testing._laws._faults import Fault, LawError, NotApplicable, gist
from oryxstate.testing._laws._programs import Programs
from oryxstate.testing._shown import code

Run = Callable[[Any, Any], tuple[Any, Any]]
PARTS = "the output", "the updated module"
_QUICK = {"xla_backend_optimization_level": 0}  # LLVM takes most of the time of compiling
COUNT = 3
"""The number of steps in a loop, and of examples in a batch."""


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A module with the arguments of one call, on which laws are checked.

    Attributes:
        module: a module, or anything else that there is an adapter for (see `adapt`).
        args: the positional arguments of the call.
        kwargs: its keywords, such as `training` and `rng`.
        batched: whether the call is mapped over examples with `jax.vmap`, for a module that only
            trains in one, such as one with `nn.BatchNorm`. Arrays in `args` then have a leading
            axis. A string is the name of the mapped axis, for layers that ask for it.
        tolerance: how far inexact numbers may be apart (see `difference`).
        adapted: what the laws see of the model, made from it when a law is checked.
        programs: the compiled calls, which the cases of one model share.

    Examples:
        >>> import jax.numpy as jnp
        >>> from oryxstate import nn
        >>> from oryxstate.testing._laws import LAWS, Case
        >>> case = Case(nn.Lambda(jnp.tanh), (jnp.ones(3),))
        >>> LAWS["jit_is_eager"](case)
    """

    module: Any
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    batched: bool | str = False
    tolerance: float | None = None
    adapted: Adapted | None = dataclasses.field(default=None, repr=False)
    programs: Programs = dataclasses.field(default_factory=Programs, repr=False)

    @property
    def inputs(self) -> Any:
        """The arguments with None for all that is not an array."""
        return eqx.filter(self.args, _tree.is_array)

    @functools.cached_property
    def of_laws(self) -> Case:
        """The case that the laws see, in which `module` is a pytree of the model's arrays."""
        if self.adapted is not None:
            return self
        example = _first(self.args) if self.batched else self.args
        adapted = adapt(self.module, example, self.kwargs)
        args, kwargs = adapted.left(self.args, self.kwargs)
        return dataclasses.replace(
            self, module=adapted.values, args=args, kwargs=kwargs, adapted=adapted
        )

    @property
    def call(self) -> Callable[..., tuple[Any, Any]]:
        """The pure call of the model: `(module, *args, **kwargs) -> (output, updated module)`."""
        return _api.call_and_update if self.adapted is None else self.adapted.call

    def partition(self, module: Any) -> tuple[Any, Any]:
        """Split the arrays of the model into those that it learns and the rest."""
        return (_grad.partition if self.adapted is None else self.adapted.partition)(module)

    def run(
        self, module: Any, inputs: Any, function: Callable[..., Any] | None = None
    ) -> tuple[Any, Any]:
        """Return `(output, updated module)`; a pure function of arrays that JAX can transform."""
        rest = eqx.filter(self.args, _tree.is_array, inverse=True)
        function = self.call if function is None else function

        def call(module: Any, inputs: Any) -> tuple[Any, Any]:
            return function(module, *eqx.combine(inputs, rest), **self.kwargs)

        if self.batched:
            name = self.batched if isinstance(self.batched, str) else None
            call = jax.vmap(call, (None, 0), (0, None), axis_name=name)
        return call(module, inputs)

    def compiled(
        self,
        transform: Callable[[Run], Callable[..., Any]],
        *,
        donate: bool = False,
        quick: bool = False,
    ) -> Callable[..., Any]:
        """Return `transform(run)` under `jax.jit`.

        Args:
            transform: a function of `run`, defined once: cases that differ in arrays alone share
                the program of each.
            donate: whether the first argument is donated.
            quick: whether to compile faster, for results that are compared with each other alone:
                other instructions round otherwise.
        """
        keywords, constants = eqx.partition(dict(self.kwargs), _tree.is_array)
        rest = eqx.filter(self.args, _tree.is_array, inverse=True)

        def whole(keywords: Any, *operands: Any) -> Any:
            given = dataclasses.replace(self, kwargs=eqx.combine(keywords, constants))
            return transform(given.run)(*operands)

        closure = (constants, rest, self.call, self.batched)
        options: dict[str, Any] = {"donate_argnums": 1} if donate else {}
        if quick:
            options["compiler_options"] = _QUICK
        jitted = self.programs.get(closure, whole, transform, donate, quick, **options)
        return functools.partial(jitted, keywords)

    @property
    def jitted(self) -> Callable[..., tuple[Any, Any]]:
        """`run` under `jax.jit`."""
        return self.compiled(_plain)

    @functools.cached_property
    def program(self) -> str:
        """The text of the jaxpr of a call, which says what is computed in it."""
        return str(jax.make_jaxpr(self.run)(self.module, self.inputs))

    @property
    def draws(self) -> bool:
        """Whether a call draws random numbers."""
        return re.search(r"\b(random_bits|random_gamma|rng_\w+)\b", self.program) is not None

    @functools.cached_property
    def slope(self) -> _losses.Slope:
        """The gradient of a call.

        Raises:
            NotApplicable: if there is none.
        """
        at, rest = _losses.split(self.module, self.inputs, self.partition)
        return _losses.differentiated(self.compiled(_losses.gradient), at, rest)

    @functools.cached_property
    def examples(self) -> list[Any]:
        """Several inputs: the values of the given one in several orders, if it takes them so."""
        rolled = [_rolled(self.inputs, by) for by in range(COUNT)]
        try:
            jax.block_until_ready([self.jitted(self.module, inputs) for inputs in rolled])
        except Exception:  # of `equinox.error_if`, for an input that must be sorted
            return [self.inputs] * COUNT
        return rolled


def _plain(run: Run) -> Run:
    return run


def _first(args: tuple) -> tuple:
    """Return the arguments of the first example of a batch, which has one `State` in common."""

    def first(leaf: Any) -> Any:
        return leaf[0] if _tree.is_array(leaf) else leaf

    return jax.tree.map(first, args, is_leaf=lambda x: isinstance(x, eqx.nn.State))


def stacked(trees: list[Any]) -> Any:
    """Stack pytrees of arrays along a leading axis."""
    return jax.tree.map(lambda *leaves: _library(leaves[0]).stack(leaves), *trees)


def _rolled(inputs: Any, by: int) -> Any:
    def roll(x: Any) -> Any:
        return _library(x).roll(x.reshape(-1), by).reshape(x.shape) if by else x

    return jax.tree.map(roll, inputs)


def _library(x: Any) -> Any:
    """Return NumPy, which compiles nothing; for random keys, which it lacks, `jax.numpy`."""
    return jnp if is_key(x) else np


Check = Callable[[Case], None]


@overload
def law(check: Check) -> Check: ...
@overload
def law(*, kinds: Collection[Kind], otherwise: str) -> Callable[[Check], Check]: ...
def law(check: Check | None = None, *, kinds: Collection[Kind] = KINDS, otherwise: str = "") -> Any:
    """Turn a function into a law. It raises `Fault` or anything else if the law does not hold.

    Args:
        check: the function.
        kinds: the kinds of models that the law means something for (see `Adapted`).
        otherwise: why it does not apply to the others.
    """
    if check is None:
        return functools.partial(_law, kinds=kinds, otherwise=otherwise)
    return _law(check, kinds=kinds, otherwise=otherwise)


def _law(check: Check, *, kinds: Collection[Kind], otherwise: str) -> Check:
    @functools.wraps(check)
    def checked(case: Case) -> None:
        __tracebackhide__ = True  # from pytest
        case = _of_laws(case)
        try:
            if case.adapted is not None and case.adapted.kind not in kinds:
                raise NotApplicable(otherwise)
            check(case)
        except (LawError, NotApplicable):
            raise
        except Exception as error:
            raise broken(check, case, error) from (
                error.__cause__ if isinstance(error, Fault) else error
            )

    checked.kinds = tuple(kinds)  # type: ignore[attr-defined]
    return checked


def _of_laws(case: Case) -> Case:
    __tracebackhide__ = True
    try:
        return case.of_laws
    except (LawError, NoAdapter):
        raise
    except Exception as error:  # of the `init` of a model
        found = f"the arrays of the model could not be made: {gist(error)}"
        raise _broken("runs", RUNS, case, found) from error


RUNS = "A call with these inputs succeeds."


def broken(check: Callable[..., Any], case: Case, error: Exception) -> LawError:
    """Make the error that names the broken law, its meaning, and code to reproduce it."""
    found = str(error) if isinstance(error, Fault) else f"the call raised {gist(error)}"
    return _broken(check.__name__, meaning(check), case, found)


def _broken(name: str, says: str, case: Case, found: str) -> LawError:
    return LawError(
        f"`{name}` does not hold for {_name(case)}.\n"
        f"  It says: {says}\n"
        f"  Found: {found}\n"
        f"  Reproduce: {_reproduce(case, name)}",
        (name,),
    )


def _name(case: Case) -> str:
    return type(case.module).__name__ if case.adapted is None else case.adapted.name


def meaning(check: Callable[..., Any]) -> str:
    """Return what a law says, in one line."""
    return (check.__doc__ or "").partition("\n")[0]


def _reproduce(case: Case, name: str) -> str:
    """Return code that checks the law again on the same case."""
    given, threaded = case.adapted, frozenset[Any]()
    if given is not None:
        model, threaded = given.code, given.threaded
    else:
        model = code(case.module) if isinstance(case.module, Module) else "model"
    args = [model, *("state" if i in threaded else code(x) for i, x in enumerate(case.args))]
    args += [f"{k}={'state' if k in threaded else code(x)}" for k, x in case.kwargs.items()]
    args += [f"batched={case.batched!r}"] * bool(case.batched)
    args += [f"tolerance={case.tolerance!r}"] * (case.tolerance is not None)
    return f"check_module({', '.join([*args, f'laws=[{name!r}]'])})"


def expect_same(
    case: Case, got: Any, want: Any, ways: tuple[str, str], parts: tuple[str, str] = PARTS
) -> None:
    """Raise `Fault` if two results `(output, updated module)` differ.

    Args:
        case: whose tolerance holds.
        got: the result of one way.
        want: the result of the other.
        ways: how they were made, in words.
        parts: of a result, in words.
    """
    for name, mine, other in zip(parts, got, want, strict=True):
        found = difference(mine, other, case.tolerance)
        if found is not None:
            raise Fault(sentence(found, name, *ways))


def sentence(found: Difference, part: str, way: str, other_way: str) -> str:
    """Describe a difference in words."""
    where = _tree.keystr(found.path)
    at = f"`{where}` of {part}" if where else part
    return f"{at} is {found.got} {way}, but {found.want} {other_way}."
