"""Shape inference without arithmetic (S12)."""

import copy
import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oryxstate as ox

SPEC = ox.ArraySpec((2, 3), "int32")


@pytest.mark.parametrize(
    ("given", "shape"), [((), ()), (3, (3,)), ([1, 2], (1, 2)), (np.int64(4), (4,)), ((0,), (0,))]
)
def test_shapes_are_normalized(given, shape):
    """W8: `[1, 2] != (1, 2)`."""
    spec = ox.ArraySpec(given)
    assert spec.shape == shape and all(type(n) is int for n in spec.shape)
    assert spec == ox.ArraySpec(shape) and spec.dtype == np.float32
    assert (spec.ndim, spec.size) == (len(shape), int(np.prod(shape)))


def test_w8_specs_are_hashable_and_compare_with_anything():
    assert hash(SPEC) == hash(ox.ArraySpec([2, 3], jnp.int32)) and len({SPEC, SPEC}) == 1
    assert ox.ArraySpec((2, 3)) != SPEC and ox.ArraySpec((3, 2), "int32") != SPEC
    for other in (None, 3, "x", (2, 3), object(), jnp.zeros((2, 3), "int32")):
        assert SPEC.__eq__(other) is NotImplemented and (other == SPEC) is False


def test_specs_are_frozen_and_copied():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SPEC.shape = (1,)
    assert pickle.loads(pickle.dumps(SPEC)) == copy.deepcopy(SPEC) == SPEC


def test_specs_print_as_jax_does():
    assert repr(SPEC) == "int32[2,3]" and repr(ox.ArraySpec()) == "float32[]"
    assert repr(ox.ArraySpec((), jax.random.key(0).dtype)) == "key<fry>[]"


def test_specs_of_arrays_and_specs():
    for value in (jnp.zeros((2, 3), "int32"), jax.ShapeDtypeStruct((2, 3), "int32"), SPEC):
        assert ox.ArraySpec(value) == SPEC
    assert ox.ArraySpec(np.zeros((2, 3)), "int32") == SPEC
    assert ox.Shape is ox.ArraySpec


@pytest.mark.parametrize("shape", ["ab", 2.5, (1, 2.5), None, (1, None), [[1]]])
def test_a_shape_that_is_none(shape):
    with pytest.raises(TypeError, match="integer or a sequence of integers"):
        ox.ArraySpec(shape)


def test_a_negative_length():
    with pytest.raises(ValueError, match="not negative"):
        ox.ArraySpec((2, -1))


def test_a_dtype_that_is_none():
    with pytest.raises(TypeError, match="nonsense"):
        ox.ArraySpec(2, "nonsense")


def test_a_spec_is_no_sequence():
    with pytest.raises(TypeError, match=r"not a sequence.*`shape`"):
        tuple(SPEC)


def test_make_array_spec():
    tree = {"a": [jnp.zeros(2), SPEC], "b": (1, 2.0, True), "k": jax.random.key(0), "n": None}
    specs = ox.make_array_spec(tree)
    assert specs["a"] == [ox.ArraySpec(2), SPEC] and specs["n"] is None
    assert specs["b"] == tuple(ox.ArraySpec((), d) for d in ("int32", "float32", "bool"))
    assert specs["k"].shape == () and jnp.issubdtype(specs["k"].dtype, jax.dtypes.prng_key)


def test_make_array_spec_names_the_path_of_what_has_no_shape():
    with pytest.raises(TypeError, match=r"\['a'\]\[1\].*'text'"):
        ox.make_array_spec({"a": [1, "text"]})
    with pytest.raises(TypeError, match="the value"):
        ox.make_array_spec("text")


class Total(ox.Module):
    weight: jax.Array = ox.param()
    total: jax.Array = ox.state()

    def call(self, x, *, scale=1.0):
        self.assign(total=self.total + x.sum())
        return {"y": x @ self.weight, "total": self.total * scale}


def dense(x, init_key=None):
    return x @ ox.variable(jax.random.normal(init_key, (x.shape[-1], 2)), name="w")


ARGUMENTS = {
    "spec": ox.ArraySpec((4, 3)),
    "struct": jax.ShapeDtypeStruct((4, 3), "float32"),
    "array": jnp.ones((4, 3)),
    "numpy": np.ones((4, 3), "float32"),
}


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_spec_of_functions_and_modules(kind):
    x = ARGUMENTS[kind]
    assert ox.spec(dense)(x) == ox.ArraySpec((4, 2))
    module = Total(jnp.ones((3, 5)), jnp.array(0.0))
    expected = {"total": ox.ArraySpec(()), "y": ox.ArraySpec((4, 5))}
    assert ox.spec(module)(x) == expected and module.total == 0
    assert ox.spec(module)(x, scale=2.0) == expected


def test_spec_of_an_initialized_function_uses_its_variables():
    module = ox.init(dense)(jax.random.key(0), jnp.ones(3))
    assert ox.spec(module)(ox.ArraySpec((7, 3))) == ox.ArraySpec((7, 2))
    with pytest.raises(ValueError, match=r"'w'.*float32\[3, ?2\]"):
        ox.spec(module)(ox.ArraySpec((7, 4)))


def test_w7_python_scalars_have_a_spec():
    assert ox.spec(lambda x, n: (x * 2, n + 1))(2.0, 3) == (
        ox.ArraySpec(()),
        ox.ArraySpec((), "int32"),
    )


def test_spec_takes_pytrees():
    out = ox.spec(lambda pair: pair["a"] + pair["b"])({"a": ox.ArraySpec(2), "b": ox.ArraySpec(2)})
    assert out == ox.ArraySpec(2)


def test_spec_of_random_keys():
    key = ox.make_array_spec(jax.random.key(0))
    assert ox.spec(lambda k: jax.random.normal(k, (3,)))(key) == ox.ArraySpec(3)
    assert ox.spec(lambda k: jax.random.split(k))(key).shape == (2,)


def test_spec_computes_nothing():
    """A terabyte would not fit, and a callback would be heard."""
    heard = []

    def loud(x):
        jax.debug.callback(heard.append, 1)
        return jnp.ones((10**6, 10**6)) @ x

    assert ox.spec(loud)(ox.ArraySpec((10**6, 2))) == ox.ArraySpec((10**6, 2))
    jax.effects_barrier()
    assert heard == []


def test_spec_leaves_nothing_behind_when_it_fails():
    with pytest.raises(ZeroDivisionError):
        ox.spec(lambda x: 1 // 0)(SPEC)
    assert isinstance(jnp.ones(2) + 1, jax.Array) and ox.spec(dense)(ox.ArraySpec(3)).shape == (2,)
