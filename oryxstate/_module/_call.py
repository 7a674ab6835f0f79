"""Root calls, and calls of modules whose author wrote `call_and_update`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

from oryxstate import _jax, _stack, _tree
from oryxstate._effects import _frames, _trace, rules  # noqa: F401  (importing installs the rules)
from oryxstate._errors import EffectError
from oryxstate._module import _hook, _keywords, _live, _pytree, _takes


def root(
    function: Callable[..., Any],
    tree: Any,
    args: tuple,
    kwargs: dict,
    *,
    taken: _takes.Taken,
    path: str = "",
) -> tuple[Any, Any]:
    """Run `function(live tree, *args, **kwargs)` as a root call: `(output, updated tree)`.

    Pure: nothing leaks out, whatever happens inside.

    Args:
        function: what is run; if `tree` is a module, it completes the keywords.
        tree: a module, or a pytree that holds modules.
        args: positional arguments.
        kwargs: keywords, of the function or for the modules in the tree.
        taken: the keywords that are for the function.
        path: where the tree stands in the model, for messages.
    """
    inside = _frames.member()
    if _frames.within_call():  # parts of it may be live in another root call: take their values
        inside = _live.full_path(tree) if _pytree.is_module(tree) else ""
        leaves, treedef = jax.tree.flatten(tree)
        tree = jax.tree.unflatten(treedef, leaves)
    own, threaded = _split(taken, tree, kwargs) if kwargs else ({}, {})
    with _trace.open_frame() as frame:
        frame.inside = inside
        keywords = _keywords.hold(threaded, frame)
        frame.model = live = _live.enter(tree, frame, path, keywords)
        outermost = frame.level == 0 and not _jax.evaluates(frame.trace)
        run = functools.partial(_stack.in_one_chunk, function) if outermost else function
        out = run(live, *args, **own)
        return _live.detach(out, frame), _live.updated_model(tree, frame, path)


def _split(taken: _takes.Taken, tree: Any, kwargs: dict) -> tuple[dict, dict]:
    completed = _keywords.names(tree, taken) if _pytree.is_module(tree) else ()
    inside = functools.partial(_takes.taken_inside, tree)
    return _takes.split(taken, inside, kwargs, lambda: type(tree).__name__, completed)


def with_keywords(
    run: Callable[..., Any], taken: _takes.Taken, module: Any, args: tuple, kwargs: dict
) -> Any:
    """Call a module inside a root call with keywords, which rule over those of calls around.

    Args:
        run: calls it with the keywords that it takes itself.
        taken: which these are.
        module: the module, live or a value without a place.
        args: positional arguments.
        kwargs: keywords, of the module or for the modules in it.
    """
    inside = functools.partial(_takes.taken_inside, module, below=True)
    own, down = _takes.split(taken, inside, kwargs, functools.partial(_called, module))
    if not down:
        return run(module, *args, **own)
    place = module.__dict__.get(_pytree.PLACE)
    if place is None:
        return _of_value(run, taken, module, args, kwargs)
    keywords, values = _keywords.make(down, place.frame.level, place.path)
    live = _live.with_keywords(module, keywords)
    if not values:
        return run(live, *args, **own)
    with _frames.replay(values, collecting=False):
        return run(live, *args, **own)


def _called(module: Any) -> str:
    path = _live.path_of(module)
    return type(module).__name__ + (f" at '{path}'" if path else "")


def _of_value(
    run: Callable[..., Any], taken: _takes.Taken, module: Any, args: tuple, kwargs: dict
) -> Any:
    """Call a module without a place with keywords for modules in it, which write nothing."""
    out, new = root(run, module, args, kwargs, taken=taken)
    for (path, old), leaf in zip(
        jax.tree_util.tree_flatten_with_path(module)[0], jax.tree.leaves(new), strict=True
    ):
        if leaf is not old:
            raise EffectError(_LOST.format(kind=type(module).__name__, field=_tree.keystr(path)))
    return out


_LOST = (
    "{kind} writes `{field}`, but it is not part of the model that is being called, so the update "
    "would be lost. Make it a field of the model, or call it explicitly, `y, module = "
    "module.call_and_update(x)`, and return the new module."
)


def completing(written: Callable[..., Any], taken: _takes.Taken) -> Callable[..., Any]:
    """Return a function of a module that runs a method of it, with the keywords completed."""

    def run(module: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            complete = _keywords.completed(module, taken, args, kwargs)
            with _live.scope(module):
                return written(module, *args, **complete)
        except Exception as error:
            locate(error, module, written, args)
            raise

    return run


def locate(error: Exception, module: Any, written: Any, args: tuple) -> None:
    """Note on an exception in which module it happened, once for each module on its way."""
    if any(map(_is_numbers, args)) and not hasattr(error, "__notes__"):
        error.add_note(_NO_ARRAY)
    path, name = _live.path_of(module), getattr(written, "__name__", "call")
    code = f"{type(module).__name__}.{name}"
    note = f"in '{path}' ({code})" if path else f"in {code}"
    if note not in getattr(error, "__notes__", ()):  # `super()` calls a module twice
        error.add_note(note)


_NO_ARRAY = "It was given a list of numbers. If it takes an array there, write `jnp.asarray(x)`."


def _is_numbers(arg: Any) -> bool:
    leaves = jax.tree.leaves(arg) if isinstance(arg, list) else ()
    return bool(leaves) and all(isinstance(leaf, int | float) for leaf in leaves)


def root_of_rule(
    rule: Callable[..., Any], module: Any, args: tuple, kwargs: dict, path: str = ""
) -> Any:
    """Run a root call of a module whose author wrote `call_and_update`: `(output, updated module)`.

    What the rule returns changed is as it says; the rest is as the calls inside it left it. `path`
    is where the module stands in the model, for messages.
    """

    def run(live: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any, Any]:
        return _follow(rule, live, args, kwargs)

    (out, *changes), current = root(
        run, module, args, kwargs, taken=_takes.taken_by(rule), path=path
    )
    triples = zip(*map(jax.tree.leaves, (*changes, current)), strict=True)
    leaves = [left if new is before else new for before, new, left in triples]
    return out, jax.tree.unflatten(jax.tree.structure(current), leaves)


def compose(rule: Callable[..., Any], live: Any, args: tuple, kwargs: dict) -> Any:
    """Run such a rule inside a root call, and assign what it changes to the module's place."""
    out, before, new = _follow(rule, live, args, kwargs)
    assign(live, before, new, type(live).__name__)
    return out


def _follow(rule: Callable[..., Any], live: Any, args: tuple, kwargs: dict) -> tuple:
    """`(output, module before, module after)` of a rule, whose `self` is a value."""
    try:
        complete = _keywords.completed(live, _takes.taken_by(rule), args, kwargs)
        before = _pytree.value_of(live) if _pytree.PLACE in live.__dict__ else live
        with _live.scope(live):
            out, new = _run_rule(rule, before, live, args, complete)
        return out, before, _same_type(new, before, type(live).__name__)
    except Exception as error:
        locate(error, live, rule, args)
        raise


def _run_rule(rule: Callable[..., Any], before: Any, live: Any, args: tuple, kwargs: dict) -> Any:
    new: Any = None

    def run(_: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal new
        out, new = _hook.run(rule, before, *args, **kwargs)
        return out

    return _hook.around(run, live, *args, **kwargs), new


def _same_type(new: Any, old: Any, kind: str) -> Any:
    """Return an update with the structure, shapes, dtypes and weak types of what it updates."""
    if _pytree.is_module(new):
        new = _pytree.value_of(new)
    treedef = jax.tree.structure(old)
    if jax.tree.structure(new) != treedef:
        raise ValueError(
            f"`call_and_update` of {kind} must return (output, new module) with the new module of "
            f"the same structure as the old. Old: {treedef}. New: {jax.tree.structure(new)}. "
            "Return `y, self.replace(field=value)`."
        )
    leaves = [
        leaf
        if leaf is before
        else _tree.conform_leaf(leaf, jax.typeof(before), f"`{_tree.keystr(path)}` of {kind}")
        for leaf, (path, before) in zip(
            jax.tree.leaves(new), jax.tree_util.tree_flatten_with_path(old)[0], strict=True
        )
    ]
    return jax.tree.unflatten(treedef, leaves)


def assign(live: Any, before: Any, new: Any, path: str) -> None:
    """Write every changed state field of `new`, and refuse any other change."""
    for field in live.__layout__.data:
        parts = [_parts(module, field) for module in (before, new)]
        if field in live.__layout__.state:
            if _changed(*parts):
                place = live.__dict__[_pytree.PLACE]
                place.write(field, tuple(parts[1]), live.__layout__.infos[field].reduce)
            continue
        for old, child in zip(*parts, strict=True):
            if _pytree.is_module(old):
                continue
            if child is not old:
                raise EffectError(
                    f"`call_and_update` of {path} changed `{field}`, which is not state, so inside "
                    "another module's call the change would be lost. Declare the field "
                    "`ox.state()`, or call it explicitly, `y, module = module.call_and_update(x)`."
                )
        for member, old, child in zip(_parts(live, field), *parts, strict=True):
            if _pytree.is_module(old):
                assign(member, old, child, f"{path}.{field}")


def _parts(module: Any, field: str) -> list[Any]:
    if field in module.__layout__.state:
        return jax.tree.leaves(getattr(module, field))
    return jax.tree.leaves(_pytree.stored(module, field), is_leaf=_pytree.is_module)


def _changed(old: list[Any], new: list[Any]) -> bool:
    return any(a is not b for a, b in zip(old, new, strict=True))
