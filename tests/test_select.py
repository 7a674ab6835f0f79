"""Selections: forms and combinations against an oracle, errors where nothing is selected."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from selected import Norm, net
from strategies import Node, assert_same, modules

import oryxstate as ox
from oryxstate import nn, select
from oryxstate._module import _pytree

ALL = list(ox.named_leaves(net()))


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("encoder", [p for p in ALL if p.startswith("encoder")]),
        ("encoder.**", [p for p in ALL if p.startswith("encoder")]),
        ("encoder[0]", ["encoder[0].scale", "encoder[0].mean"]),
        ("encoder[0].scale", ["encoder[0].scale"]),
        ("encoder[*].scale", ["encoder[0].scale", "encoder[1].scale"]),
        ("encoder.*.scale", ["encoder[0].scale", "encoder[1].scale"]),
        ("encoder[1:].**.scale", ["encoder[1].scale", "encoder[2]['norm'].scale"]),
        ("encoder[:1].*", ["encoder[0].scale", "encoder[0].mean"]),
        ("encoder[0:2].mean", ["encoder[0].mean", "encoder[1].mean"]),
        ("encoder.**.scale", [f"encoder{p}.scale" for p in ("[0]", "[1]", "[2]['norm']")]),
        ("**.kernel", ["head['kernel']"]),
        ("head.kernel", ["head['kernel']"]),
        ("head['kernel']", ["head['kernel']"]),
        ('head["kernel"]', ["head['kernel']"]),
        ("head['a b'].scale", ["head['a b'].scale"]),
        ("head['a*'].scale", ["head['a b'].scale"]),
        ("**.tabl?", ["table"]),
        ("*.*.*.s*", ["encoder[2]['norm'].scale"]),
        ("**", ALL),
        ("", ALL),
    ],
)
def test_a_pattern_selects_the_paths_that_it_names(pattern, paths):
    assert sorted(select.path(pattern).paths(net())) == sorted(paths)


@pytest.mark.parametrize("bad", ["a[0", "a..b", ".a", "a.", "a['b"])
def test_a_pattern_that_cannot_be_read_is_refused(bad):
    with pytest.raises(ValueError, match=r"^the path .* has (a bracket|an empty key) .*position"):
        select.path(bad)


# An oracle on drawn models ------------------------------------------------------------------------


def keys_of(path):
    """The keys of a path of JAX, each as text."""
    return [str(getattr(k, "name", getattr(k, "key", getattr(k, "idx", None)))) for k in path]


def drawn_leaves(model):
    return jax.tree_util.tree_flatten_with_path(model)[0]


def inside(path, owner):
    return owner == "" or path == owner or path.startswith((f"{owner}.", f"{owner}["))


@st.composite
def atoms(draw, model):
    """A selection and the positions of the leaves that it must select."""
    leaves = drawn_leaves(model)
    paths = list(ox.named_leaves(model))
    form = draw(st.sampled_from(["path", "field", "class", "kind", "where"]))
    everything = range(len(leaves))
    if form == "path":
        keys = list(leaves[draw(st.sampled_from(everything))][0])
        keys = keys[: draw(st.integers(1, len(keys)))]
        wild = [draw(st.sampled_from(["key", "key", "*", "**"])) for _ in keys]
        written, regex = "", ""
        for key, form in zip(keys, wild, strict=True):
            text = jax.tree_util.keystr((key,))
            written += text if form == "key" else f".{form}"
            own = re.escape(keys_of((key,))[0])
            regex += {"key": f"/{own}", "*": "/[^/]+", "**": "(?:/[^/]+)*"}[form]
        flat = ["".join(f"/{k}" for k in keys_of(path)) for path, _ in leaves]
        held = {i for i in everything if re.fullmatch(regex + "(?:/.*)?", flat[i])}
        return select.path(written.removeprefix(".")), held
    if form == "field":
        names = {k.name for path, _ in leaves for k in path if hasattr(k, "name")}
        name = draw(st.sampled_from(sorted(names)))
        held = {i for i in everything if any(getattr(k, "name", 0) == name for k in leaves[i][0])}
        return select.field(name), held
    if form == "class":
        found = list(_pytree.modules(model))
        cls = draw(st.sampled_from([type(m) for _, m in found] + [Node, nn.Dense]))
        owners = [path for path, m in found if isinstance(m, cls)]
        held = {i for i in everything if any(inside(paths[i], owner) for owner in owners)}
        return select.instances(cls), held
    if form == "kind":
        of_state = set(_pytree.state_positions(model))
        if draw(st.booleans()):
            return select.state, of_state
        return select.params, set(everything) - of_state
    held = {i for i in everything if np.ndim(leaves[i][1]) > 0}
    return select.where(lambda path, x: x.ndim > 0), held


@st.composite
def expressions(draw, model, depth=3):
    form = draw(st.sampled_from(["atom", "|", "&", "-", "~"])) if depth else "atom"
    if form == "atom":
        return draw(atoms(model))
    a, held_a = draw(expressions(model, depth - 1))
    if form == "~":
        return ~a, set(range(len(drawn_leaves(model)))) - held_a
    b, held_b = draw(expressions(model, depth - 1))
    return {
        "|": (a | b, held_a | held_b),
        "&": (a & b, held_a & held_b),
        "-": (a - b, held_a - held_b),
    }[form]


@given(modules, st.data())
def test_every_combination_selects_what_sets_say(model, data):
    assume(jax.tree.leaves(model) and drawn_leaves(model)[0][0])
    selection, held = data.draw(expressions(model))
    paths = list(ox.named_leaves(model))
    if not held:
        with pytest.raises(ValueError, match=r"^nothing is selected by "):
            selection.paths(model)
        return
    assert selection.paths(model) == [paths[i] for i in sorted(held)]
    mask = jax.tree.leaves(selection.mask(model))
    assert [i for i, wanted in enumerate(mask) if wanted] == sorted(held)
    assert jax.tree.structure(selection.mask(model)) == jax.tree.structure(model)
    assert selection.paths(jax.eval_shape(lambda: model)) == selection.paths(model)
    sizes = [np.size(x) for x in jax.tree.leaves(model)]
    assert selection.count(model) == sum(sizes[i] for i in held)
    leaves = jax.tree.leaves(select.at(model)[selection].apply(lambda x: jnp.zeros((7,))))
    assert [i for i, x in enumerate(leaves) if x.shape == (7,)] == sorted(held)
    assert_same(select.at(model)[selection].take(model), model)


def test_strings_and_classes_stand_for_selections():
    model = net()
    assert model.at["encoder"].paths() == select.path("encoder").paths(model)
    assert model.at[Norm].paths() == select.instances(Norm).paths(model)
    assert (select.params & "encoder" & Norm).count(model) == 6
    assert ("encoder" & select.state).count(model) == 3
    assert (Norm - select.state).count(model) == 8
    assert ("table" | select.state).count(model) == 6
    assert select.path("table", "head.kernel").count(model) == 6
    with pytest.raises(TypeError, match=r"made by `ox.select`, or is a path or a class, got 3\."):
        model.at[3]
    for nothing in (select.path, select.field, select.instances):
        with pytest.raises(ValueError, match="takes at least one"):
            nothing()


# Static fields, functions, and trees without modules ----------------------------------------------


def test_static_fields_are_selected_only_where_static_is_named():
    model = net()
    rates = select.static & "encoder.**.momentum"
    assert list(rates.get(model).values()) == [0.9, 0.9, 0.9]
    changed = model.at[rates].set(0.5)
    assert changed.encoder[2]["norm"].momentum == 0.5 and changed.head["a b"].momentum == 0.9
    assert model.at[rates].apply(lambda x: x / 2).encoder[0].momentum == 0.45
    text = (
        r"only static fields, such as 'encoder\[0\].momentum'.*path\('\*\*.momentum'\) & select.st"
    )
    with pytest.raises(ValueError, match=text):
        model.at["**.momentum"].get()
    with pytest.raises(TypeError, match="field `momentum` of Norm is static but holds an array"):
        model.at[rates].set(jnp.ones(2))
    assert "momentum" not in str((~select.path("table")).paths(model))


def test_leaves_of_an_equinox_model_that_are_no_arrays_are_static():
    model = eqx.nn.MLP(2, 2, 4, 1, key=jax.random.key(0))
    assert (select.static & "activation").get(model) == {"activation": model.activation}
    assert select.path("layers").count(model) == select.params.count(model) == 22
    assert select.instances(eqx.nn.Linear).count(model) == 22
    assert model.activation is select.at(model)["**"].cast(jnp.float16).activation
    assert select.params.mask(model).activation is False
    with pytest.raises(
        ValueError, match=r"leaves that are not arrays, such as 'activation'\. .*st"
    ):
        select.path("activation").paths(model)
    with pytest.raises(ValueError, match=r"Of 4 leaves, select.where\(<lambda>\) selects 0, "):
        (select.where(lambda path, x: x.ndim > 5) & "layers").paths(model)


def test_variables_of_functions_are_fields():
    def f(x, init_key=None):
        w = ox.variable(jnp.ones(3), name="w")
        ox.variable(jnp.zeros(()), name="n")
        ox.assign(jnp.ones(()), name="n")
        return ox.init(nn.Dense.of(3), name="dense")(init_key, x * w)(x)

    model = ox.init(f)(jax.random.key(0), jnp.ones(3))
    assert select.field("w").paths(model) == select.path("w").paths(model) == ["w"]
    assert select.state.paths(model) == ["n"] and select.params.count(model) == 15
    assert select.path("dense").paths(model) == ["dense.kernel", "dense.bias"]
    assert model.at["dense.bias"].set(2.0)(jnp.zeros(3)).tolist() == [2, 2, 2]


def test_any_pytree_will_do():
    tree = {"model": net(), "step": jnp.array(3), "moments": (jnp.ones(2), None)}
    assert select.path("moments[0]", "step").count(tree) == 3
    assert select.at(tree)["step"].set(0)["step"] == 0
    assert select.path("").paths(jnp.ones(2)) == [""]


# Nothing is selected ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selection", "text"),
    [
        ("encodr.**.scale", r"path\('encodr.\*\*.scale'\). Did you mean 'encoder.\*\*.scale'\?"),
        ("encoder[0].scal", r"Did you mean 'encoder\[0\].scale'\?"),
        ("encoder[7].scale", r"Did you mean 'encoder\[1\].scale' or 'encoder\[0\].scale'"),
        ("head['kernal']", r"Did you mean \"head\['kernel'\]\"\?"),
        ("zzz", r"'zzz'\). The tree has the paths: encoder\[0\].scale, .*, \.\.\."),
        (select.field("scal"), r"select.field\('scal'\). Did you mean 'scale'\?"),
        (select.field("q"), r"The tree has the fields: encoder, head, .*table"),
        (
            select.instances(nn.BatchNorm),
            r"selected by select.instances\(BatchNorm\). Did you mean Norm\?",
        ),
        (
            ~select.path("encodr"),
            r"'encodr'\), which occurs in ~select.path.* Did you mean 'encoder'",
        ),
        ("table" | select.field("sclae"), r"which occurs in \(.*Did you mean 'scale'"),
        (
            select.state & "table",
            r"Of 10 leaves, select.state selects 4, select.path\('table'\) selects 1 by itself\.",
        ),
        (select.instances(nn.Dense), "The tree has the classes: Net, Norm"),
        (select.where(lambda path, x: x.ndim > 5), r"selected by select.where\(<lambda>\)\."),
    ],
)
def test_a_selection_of_nothing_is_an_error_with_near_misses(selection, text):
    for use in (lambda part: part.get(), lambda part: part.set(0), lambda part: part.paths()):
        with pytest.raises(ValueError, match=text):
            use(net().at[selection])
    with pytest.raises(ValueError, match=text):
        jax.jit(lambda m: m.at[selection].count())(net())


def test_kinds_that_are_not_there():
    with pytest.raises(
        ValueError, match=r"by select.state. The tree has the leaves of kind: param"
    ):
        select.state.paths({"a": jnp.ones(2)})
    with pytest.raises(ValueError, match="The tree has no leaves"):
        select.state.paths({})


def test_places_that_hold_none_are_known_but_not_selected():
    params, _ = ox.partition(net(), "head.kernel")
    assert (~select.path("encoder")).paths(params) == ["head['kernel']"]
    with pytest.raises(
        ValueError, match=r"only places that hold None, such as 'encoder\[0\].scale'"
    ):
        select.path("encoder").paths(params)
