"""Laws of modules, over classes and instances that Hypothesis makes up (S1, S2, S3)."""

import copy
import dataclasses
import pickle

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from strategies import Node, assert_same, inputs, modules, step, threaded, values

import oryxstate as ox

# Compiling takes most of the time.
few = settings(max_examples=15)


def expected_leaves(tree, path=""):
    """Paths and leaves in order, from the dataclass fields alone."""
    if isinstance(tree, Node):
        for field, kind in tree.KINDS.items():
            if kind != "static":
                yield from expected_leaves(getattr(tree, field), f"{path}.{field}")
    else:
        nodes = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: isinstance(x, Node))[0]
        for key, leaf in nodes:
            at = path + jax.tree_util.keystr(key)
            if isinstance(leaf, Node):
                yield from expected_leaves(leaf, at)
            elif hasattr(leaf, "dtype"):
                yield at, leaf


@given(modules)
def test_leaves_have_the_key_paths_of_their_fields(module):
    flat = jax.tree_util.tree_flatten_with_path(module)[0]
    expected = list(expected_leaves(module))
    assert [jax.tree_util.keystr(path) for path, _ in flat] == [path for path, _ in expected]
    assert all(a is b for (_, a), (_, b) in zip(flat, expected, strict=True))


@given(modules)
def test_tree_flatten_and_unflatten_are_inverse(module):
    leaves, treedef = jax.tree.flatten(module)
    again = jax.tree.unflatten(treedef, leaves)
    assert type(again) is type(module) and again is not module
    again_leaves, again_treedef = jax.tree.flatten(again)
    assert again_treedef == treedef and hash(again_treedef) == hash(treedef)
    assert all(a is b for a, b in zip(leaves, again_leaves, strict=True))
    assert repr(again) == repr(module)


@given(modules)
def test_the_methods_flatten_and_unflatten_are_inverse(module):
    xs, static_data = module.flatten()
    again = type(module).unflatten(static_data, xs)
    assert_same(again, module)
    assert again.flatten()[1] == static_data and hash(static_data) is not None


@given(modules)
def test_tree_map_of_the_identity_is_the_module(module):
    assert_same(jax.tree.map(lambda x: x, module), module)


@given(modules)
def test_replace_with_its_own_values_is_the_module(module):
    fields = {field.name: getattr(module, field.name) for field in dataclasses.fields(module)}
    assert_same(module.replace(**fields), module)
    assert_same(module.replace(), module)


@given(modules, values)
def test_replace_changes_one_field_and_no_other(module, value):
    for field in (*module.PARAM, *module.STATE):
        new = module.replace(**{field: value})
        assert getattr(new, field) is value
        assert_same(new.replace(**{field: getattr(module, field)}), module)


@given(modules)
def test_replaced_state_is_what_update_gives(module):
    updated = module.update(jnp.float32(1))
    replaced = module.replace(**{field: step(getattr(module, field)) for field in module.STATE})
    for field in module.STATE:
        assert_same(getattr(updated, field), getattr(replaced, field))
    children = {field: getattr(module, field) for field in module.CHILD}
    assert_same(updated.replace(**children), replaced)


@given(modules)
def test_pickle_and_copies_are_the_module(module):
    assert_same(pickle.loads(pickle.dumps(module)), module)
    assert_same(copy.deepcopy(module), module)
    assert_same(copy.copy(module), module)


@given(modules, inputs)
def test_calls_follow_the_hand_threaded_program(module, x):
    assert_same(ox.call_and_update(module, x), threaded(module, x), exact=False)


@few
@given(modules, inputs)
def test_jitted_calls_follow_the_hand_threaded_program(module, x):
    jitted = jax.jit(ox.call_and_update)
    y, new = jitted(module, x)
    expected_y, expected = threaded(module, x)
    assert_same((y, new), (expected_y, expected), exact=False)
    assert_same(jitted(new, y), threaded(expected, expected_y), exact=False)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jitted"])
@few
@given(module=modules, x=inputs)
def test_laws(transform, module, x):
    """S3: the halves agree, the update has the types of the module, the module is unchanged."""
    leaves = jax.tree.leaves(module)
    copies = [x.copy() for x in leaves]
    y, new = transform(ox.call_and_update)(module, x)
    assert_same(transform(ox.call)(module, x), y)
    assert_same(transform(ox.update)(module, x), new)
    assert_same(module.update(x), new, exact=False)
    assert_same(module(x), y, exact=False)
    assert jax.tree.structure(new) == jax.tree.structure(module)
    for old_leaf, new_leaf in zip(jax.tree.leaves(module), jax.tree.leaves(new), strict=True):
        assert jax.typeof(new_leaf) == jax.typeof(old_leaf)
    assert all(a is b for a, b in zip(jax.tree.leaves(module), leaves, strict=True))
    assert_same(jax.tree.leaves(module), copies)


@given(modules)
def test_variables_stand_under_names_or_fields(module):
    def own_name(value):
        return value.name if isinstance(value, Node) else None

    fields = [f for f, kind in module.KINDS.items() if kind != "static"]
    expected = [own_name(getattr(module, f)) or f for f in fields]
    if len(set(expected)) < len(expected):
        with pytest.raises(ValueError, match="two variables named"):
            module.variables()
        return
    variables = module.variables()
    assert list(variables) == expected
    for field, name in zip(fields, expected, strict=True):
        assert_same(variables[name], getattr(module, field))
    variables.clear()
    assert list(module.variables()) == expected
