"""The modules and inputs on which laws are checked, drawn by Hypothesis."""

from __future__ import annotations

from typing import Any, get_origin

import equinox as eqx
import hypothesis.strategies as st
import jax

from oryxstate._module._base import Module
from oryxstate.nn._layer import Layer
from oryxstate.nn._template import Template
from oryxstate.testing import _shown
from oryxstate.testing._adapters import is_adapted
from oryxstate.testing._catalogue import TemplateExample
from oryxstate.testing._dimensions import FewSizes
from oryxstate.testing._foreign_inputs import inputs_of_call
from oryxstate.testing._inputs import inputs as inputs_of
from oryxstate.testing._laws import Case
from oryxstate.testing._laws._case import COUNT
from oryxstate.testing._laws._programs import Programs
from oryxstate.testing._modules import modules
from oryxstate.testing._templates import templates
from oryxstate.testing._values import values
from oryxstate.testing._walk import has_batched_rule


def is_drawn(subject: Any) -> bool:
    """Tell whether something says which modules there are, rather than being one."""
    kinds = (type, st.SearchStrategy, TemplateExample, Template)
    return isinstance(subject, kinds) or isinstance(get_origin(subject), type)


def cases(
    subject: Any,
    inputs: Any = None,
    *,
    batched: bool | str | None = None,
    tolerance: float | None = None,
) -> st.SearchStrategy[Case]:
    """Strategy of modules with inputs, on which laws are checked.

    They have few different shapes, and share the programs that are compiled for these.

    Args:
        subject: a class of modules, a model, a `TemplateExample`, or a strategy of one of the two.
        inputs: the arguments as a tuple, a strategy of `(args, kwargs)`, or a function of a module
            that returns one of these; by default drawn by the annotations of the module's call.
        batched: whether calls are mapped over examples; by default they are if there is a layer
            that sees the whole batch.
        tolerance: of the laws.
    """
    # Made once: a strategy remembers the examples that were refused, to give up with the reason.
    return _cases(_subjects(subject), inputs, batched, tolerance, Programs())


@st.composite
def _cases(
    draw: st.DrawFn,
    subjects: st.SearchStrategy[Any],
    inputs: Any,
    batched: bool | str | None,
    tolerance: float | None,
    programs: Programs,
) -> Case:
    module, specs = _module(draw, draw(subjects))
    if batched is None:
        batched = inputs is None and has_batched_rule(module)
    if callable(inputs):
        inputs = inputs(module)
    if inputs is None:
        examples = COUNT if batched else None
        if isinstance(module, Module):
            inputs = inputs_of(module, *specs, sizes=FewSizes(), examples=examples)
        else:
            inputs = inputs_of_call(module, examples)
    args, kwargs = draw(inputs) if isinstance(inputs, st.SearchStrategy) else (inputs, {})
    return Case(module, tuple(args), kwargs, batched, tolerance, programs=programs)


def _subjects(subject: Any) -> st.SearchStrategy[Any]:
    """Return a strategy of modules or of `TemplateExample`."""
    if isinstance(subject, st.SearchStrategy):
        return subject
    if isinstance(subject, Template):
        raise TypeError(
            f"{subject!r} is a template, whose inputs are not known. Give "
            f"`TemplateExample({subject!r}, (ArraySpec(...),))`."
        )
    cls = get_origin(subject) or subject
    if isinstance(cls, type) and issubclass(cls, Layer):
        # With inputs that it takes: annotations do not say along which axis the features are.
        return templates(cls)
    if isinstance(cls, type) and issubclass(cls, eqx.Module):
        return values(subject, sizes=FewSizes())
    return modules(subject, sizes=FewSizes()) if isinstance(cls, type) else st.just(subject)


def _module(draw: st.DrawFn, found: Any) -> tuple[Any, tuple]:
    """Return a model, and the specs of its inputs if they are known."""
    if isinstance(found, TemplateExample):
        key = jax.random.key(draw(st.integers(0, 2**31 - 1)))
        return found.template.init(key, *found.specs), found.specs
    if not (callable(found) or type(found) in (list, tuple) or is_adapted(found)):
        raise TypeError(
            f"laws are checked on models, but got {found!r}. Give a class of modules, a model, or "
            "a strategy of models."
        )
    return found, ()


_shown.show(Case)
