"""A function that declares variables means the same wherever it stands (S8, S10, S11, S12)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import oryxstate as ox
from oryxstate import nn

KEY = jax.random.key(0)
X = jnp.ones(3)


def shown(obj):
    """A name that is the same in every process: pytest-xdist compares them."""
    return getattr(obj, "__name__", repr(obj))


WAYS = pytest.mark.parametrize("way", [lambda f: f, jax.jit], ids=["eager", "jitted"])


def counter(x):
    n = ox.variable(0.0, name="n")
    ox.assign(n + 1, name="n")
    return x + n


def other(x):
    m = ox.variable(0.0, name="m")
    ox.assign(m + 1, name="m")
    return x + m


def scaled(x, init_key=None):
    return counter(x) * ox.variable(1 + jax.random.uniform(init_key), name="w")


class Cell(ox.Module):
    w: jax.Array = ox.param(default_factory=lambda: jnp.float32(0.5))
    h: jax.Array = ox.state(default_factory=lambda: jnp.float32(0))

    def call(self, x):
        self.assign(h=jnp.tanh(self.w * self.h + x))
        return self.h


def counts(model):
    return [float(np.max(v)) for k, v in ox.named_leaves(model).items() if k.endswith("n")]


# Containers and layers ----------------------------------------------------------------------------

PLACES = {
    "chain": (nn.Lambda.of(jnp.sin) >> scaled, [2]),
    "chain of chains": (nn.Serial.of(nn.Serial.of(scaled), counter), [2, 2]),
    "fan-out": (nn.FanOut.of(scaled, counter), [2, 2]),
    "residual": (nn.Residual.of(scaled), [2]),
    "shortcut": (nn.Residual.of(jnp.sin, scaled), [2]),
    "repeat": (nn.Repeat.of(scaled, 3), [2]),
    "shared": (nn.Shared.of(scaled, 3), [6]),
    "jitted": (jax.jit(scaled) >> nn.Lambda.of(jnp.sin), [2]),
    "list": ([scaled, counter], [2, 2]),
    "tuple": ((scaled, counter), [2, 2]),
    "dict": ({"a": scaled}, [2]),
    "list in a chain": (nn.Serial.of([scaled, counter], jnp.sin), [2, 2]),
    "chain in a list": ([nn.Lambda.of(jnp.sin) >> scaled, counter], [2, 2]),
}


@WAYS
@pytest.mark.parametrize("place", PLACES)
def test_a_function_is_initialized_where_it_stands(place, way):
    template, expected = PLACES[place]
    model = ox.init(template)(KEY, X)
    new = way(ox.update)(way(ox.update)(model, X), X)
    assert counts(new) == expected and not any(counts(model))
    assert jax.tree.structure(new) == jax.tree.structure(model)
    shapes = ox.make_array_spec(ox.call(model, X))
    assert ox.spec(template)(X) == ox.spec(model)(ox.ArraySpec(3)) == shapes


def test_paths_of_variables_are_written_as_attributes():
    model = ox.init(nn.Dense.of(3) >> scaled)(KEY, X)
    assert list(ox.named_leaves(model))[2:] == ["layers[1].w", "layers[1].n"]
    assert model.layers[1].n == 0


def test_a_chain_has_only_the_shapes_of_its_inputs():
    def remembers(x):
        return x - ox.variable(x.mean(), name="mean")

    for make in (lambda: ox.init(jnp.sin >> nn.Serial.of(remembers))(KEY, X),):
        with pytest.raises(ValueError, match="depends on values of the inputs"):
            make()
    assert ox.init([jnp.sin, remembers])(KEY, X)[1].mean.shape == ()


@pytest.mark.parametrize("place", PLACES)
def test_init_takes_specs(place):
    given, made = (ox.init(PLACES[place][0])(KEY, x) for x in (ox.ArraySpec(3), X))
    assert list(ox.named_leaves(given)) == list(ox.named_leaves(made))
    for one, other in zip(jax.tree.leaves(given), jax.tree.leaves(made), strict=True):
        assert ox.make_array_spec(one) == ox.make_array_spec(other)
    assert ox.init([jnp.tanh, nn.Dense.of(2)])(KEY, ox.ArraySpec(3))[1].kernel.shape == (3, 2)


@WAYS
def test_a_list_hands_a_tuple_on_as_arguments(way):
    parts = [lambda x: (x, x + 1), lambda x, y: x + y, counter]
    assert ox.spec(parts)(ox.ArraySpec(())) == ox.ArraySpec(())
    for model in (ox.init(parts)(KEY, 1.0), ox.init(nn.Serial.of(*parts))(KEY, 1.0)):
        y, new = way(ox.call_and_update)(way(ox.update)(model, 1.0), 1.0)
        assert y == 4 and counts(new) == [2]
    with pytest.raises(ValueError, match="init"):
        ox.call(parts, 1.0)


# Inside a function --------------------------------------------------------------------------------

BODIES = {
    "plain": lambda f: f,
    "jit": jax.jit,
    "checkpoint": jax.checkpoint,
    "vmap": lambda f: lambda x: jax.vmap(lambda _: f(x))(jnp.zeros(2))[0],
    "cond": lambda f: lambda x: lax.cond(x > -9, f, lambda x: x, x),
    "scan": lambda f: lambda x: lax.scan(lambda h, _: (f(h), None), x, None, length=1)[0],
}


@WAYS
@pytest.mark.parametrize("body", BODIES)
def test_a_nested_module_is_threaded_through_transformations(body, way):
    def f(x, init_key=None):
        a = ox.init(counter)(init_key, x)
        b = ox.init(Cell(), name="b")(init_key, x)
        return BODIES[body](lambda x: b(a(x)))(x)

    module = ox.init(f)(KEY, jnp.float32(1))
    new = way(ox.update)(way(ox.update)(module, jnp.float32(1)), jnp.float32(1))
    assert list(new.variables()) == ["n", "b"] and new.n == 2
    want = Cell().update(1.0).update(2.0)
    np.testing.assert_allclose(new.b.h, want.h, atol=1e-6)


@WAYS
@pytest.mark.parametrize("body", ["plain", "jit", "checkpoint"])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (scaled, None),
        (scaled, "c"),
        (Cell, "c"),
        (nn.Dense.of(3) >> counter, None),
        (nn.Dense.of(3) >> counter, "c"),
    ],
    ids=shown,
)
def test_a_module_is_declared_inside_a_transformation(make, name, body, way):
    def f(x, init_key=None):
        made = Cell(h=x) if make is Cell else make
        return ox.init(made, name=name)(init_key, x)(x)

    module = ox.init(BODIES[body](f))(KEY, X)
    names = {None: ["w", "n"] if make is scaled else ["serial"], "c": ["c"]}[name]
    assert list(module.variables()) == names
    new = way(ox.update)(way(ox.update)(module, X), X)
    assert counts(new) in ([2], []) and jax.tree.structure(new) == jax.tree.structure(module)


@WAYS
@pytest.mark.parametrize("kind", [list, tuple])
def test_a_container_made_inside_a_function(kind, way):
    def f(x, init_key=None):
        a, b = ox.init(kind([counter, other]))(init_key, x)
        return b(a(x))

    module = ox.init(f)(KEY, 1.0)
    assert {k: float(v) for k, v in module.variables().items()} == {"n": 0, "m": 0}
    y, new = way(ox.call_and_update)(module, 1.0)
    assert y == 1 and {k: float(v) for k, v in new.variables().items()} == {"n": 1, "m": 1}


@WAYS
@pytest.mark.parametrize("name", [None, "c"])
def test_explicit_calls_inside_a_function_are_pure(name, way):
    def f(x, init_key=None):
        c = ox.init(counter, name=name)(init_key, x)
        _, new = ox.call_and_update(c, x)
        _, method = c.call_and_update(x)
        again = ox.update(ox.update(c, x), x)
        ox.spec(counter)(x)
        return ox.call(c, x), new.n, method.n, again.n

    module = ox.init(f)(KEY, 1.0)
    out, new = way(ox.call_and_update)(module, 1.0)
    assert [float(y) for y in out] == [1, 1, 1, 2]
    assert jax.tree.leaves(new) == [0]


def test_a_root_call_of_a_module_declares_nothing_outside():
    class Declares(ox.Module):
        w: jax.Array = ox.param(default_factory=lambda: jnp.float32(1))

        def call(self, x):
            return x * ox.variable(self.w, name="inner")

    module = ox.init(lambda x: ox.call(Declares(), x))(KEY, 1.0)
    assert module.variables() == {}


@WAYS
def test_nested_function_modules_are_modules(way):
    seen = []

    def f(x, init_key=None):
        c = ox.init(counter)(init_key, x)
        seen.append(isinstance(c, ox.FunctionModule) and list(c.variables()))
        c(x)
        return c.n

    module = ox.init(f)(KEY, 1.0)
    assert way(ox.call)(module, 1.0) == 1 and seen == [["n"]] * len(seen)


@WAYS
def test_a_nested_function_sees_what_is_around_it_now(way):
    def f(x, init_key=None):
        def inner(y):
            return y * ox.variable(1.0, name="w") + x

        return [ox.init(inner, name=name)(init_key, x)(x) for name in (None, "g")]

    assert [float(y) for y in way(ox.call)(ox.init(f)(KEY, 1.0), 5.0)] == [10, 10]


@WAYS
@pytest.mark.parametrize("depth", [1, 3])
def test_deep_functions_without_names_have_flat_variables(depth, way):
    f = counter
    for _ in range(depth):
        f = (lambda g: lambda x, init_key=None: ox.init(g)(init_key, x)(x))(f)
    module = ox.init(f)(KEY, 1.0)
    new = way(ox.update)(way(ox.update)(module, 1.0), 1.0)
    assert list(new.variables()) == ["n"] and new.n == 2
    assert new.replace(n=jnp.array(5.0)).update(1.0).n == 6


# Assigned as a whole ------------------------------------------------------------------------------


@WAYS
@pytest.mark.parametrize("make", [counter, Cell(), nn.Lambda.of(jnp.sin) >> scaled], ids=shown)
def test_a_whole_module_is_assigned_under_its_name(make, way):
    def f(x, init_key=None):
        c = ox.init(make, name="c")(init_key, x)
        _, new = c.call_and_update(x)
        _, new = new.call_and_update(x)
        ox.assign(new, name="c")
        return x

    def twice(x, init_key=None):
        c = ox.init(make, name="c")(init_key, x)
        c(x), c(x)
        return x

    module, want = ox.init(f)(KEY, X[0]), ox.init(twice)(KEY, X[0])
    assert "c" in module.modules, "its params are still learned"
    for _ in range(2):
        module, want = way(ox.update)(module, X[0]), way(ox.update)(want, X[0])
        assert ox.named_leaves(module) == ox.named_leaves(want)


@WAYS
def test_what_changes_a_module_as_a_whole_makes_it_state(way):
    def step(x, init_key=None):
        model = ox.init(nn.Dense.of(1) >> counter, name="model")(init_key, x)
        value = ox.snapshot(model)
        gradient = ox.grad(lambda m: (m.layers[0](x) ** 2).sum())(value)
        new = jax.tree.map(
            lambda p, g: p if g is None else p - 0.1 * g,
            value,
            gradient,
            is_leaf=lambda v: v is None,
        )
        return (ox.assign(new, name="model").layers[0](x) ** 2).sum()

    module = ox.init(way(step))(KEY, X)
    assert list(module.states) == ["model"] and jax.tree.leaves(ox.partition(module)[0]) == []
    losses = []
    for _ in range(3):
        loss, module = way(ox.call_and_update)(module, X)
        losses += [float(loss)]
    assert losses == sorted(losses, reverse=True) and module.model.layers[1].n == 0


def test_a_module_that_is_no_state_is_not_changed():
    def f(x, change=False, init_key=None):
        cell = ox.init(Cell(), name="cell")(init_key, x)
        if change:
            ox.assign(cell.replace(w=x), name="cell")
        return x

    module = ox.init(f)(KEY, jnp.float32(1))
    with pytest.raises(ValueError, match=r"module 'cell'.*not state"):
        module(jnp.float32(1), change=True)
    with pytest.raises(ValueError, match=r"'cell'.*structure"):
        ox.init(lambda x: ox.assign(x, name=ox.init(Cell(), name="cell")(KEY, x).name))(KEY, 1.0)


@WAYS
def test_a_variable_of_a_nested_function_without_a_name_is_assigned(way):
    def f(x, init_key=None):
        c = ox.init(counter)(init_key, x)
        c(x)
        return ox.assign(c.n + 10, name="n")

    y, new = way(ox.call_and_update)(ox.init(f)(KEY, 1.0), 1.0)
    assert y == 11 and new.n == 11


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [ox.call, ox.update, ox.call_and_update])
@pytest.mark.parametrize("given", [nn.Dense.of(2), nn.Dense.of(2) >> counter, counter, scaled])
def test_what_has_no_variables_yet_is_not_called(run, given):
    wrapped = [given, [given], (given,), {"a": given}]
    wrapped += [] if isinstance(given, nn.Template) else [jax.jit(given)]
    for obj in wrapped:
        with pytest.raises((TypeError, ValueError), match=r"ox\.init"):
            run(obj, X)

    def inside(x):
        return run(given, x)

    with pytest.raises((TypeError, ValueError), match=r"ox\.init"):
        ox.init(inside)(KEY, X)


NAMES = [
    "params",
    "states",
    "modules",
    "function",
    "name",
    "call",
    "variables",
    "assign",
    "__key__",
]


@pytest.mark.parametrize("name", [*NAMES, "f()"])
@pytest.mark.parametrize("value", [0.0, Cell(), counter, nn.Dense.of(2)], ids=shown)
def test_names_of_the_library_are_refused_where_they_are_declared(name, value):
    def f(x, init_key=None):
        ox.init(value, name=name)(init_key, x) if value else ox.variable(value, name=name)
        return x

    with pytest.raises(ValueError, match=rf"named '{name[:3]}"):
        ox.init(f)(KEY, X)


@pytest.mark.parametrize("order", [0, 1])
def test_a_variable_and_a_module_of_one_name(order):
    def f(x, init_key=None):
        parts = [
            lambda: ox.variable(0.0, name="n"),
            lambda: ox.init(counter)(init_key, x),
            lambda: ox.init(counter, name="n")(init_key, x),
        ]
        for part in (parts[order], parts[2 - order], parts[order * 2 - order]):
            part()
        return x

    with pytest.raises(ValueError, match="'n' in one function"):
        ox.init(f)(KEY, 1.0)


@WAYS
def test_key_and_mode(way):
    def f(x, init_key=None):
        w = ox.variable(x, name="w", key=init_key, mode="strict")
        return ox.assign(w + 1, name="w", key=init_key, mode="clobber")

    assert way(ox.update)(ox.init(f)(KEY, 1.0), 1.0).w == 2
    for wrong in (
        lambda x: ox.variable(x, name="w", mode="append"),
        lambda x: ox.assign(ox.variable(x, name="w"), name="w", mode="append"),
    ):
        with pytest.raises(ValueError, match=r"no mode 'append'.*'(strict|clobber)'"):
            ox.init(wrong)(KEY, 1.0)


# Types from outside -------------------------------------------------------------------------------


class Affine:
    def __init__(self, offset):
        self.offset = offset


@ox.call_and_update.register
def _(obj: Affine, x):
    return x + obj.offset, obj


@jax.tree_util.register_pytree_node_class
class Sum:
    def __init__(self, total):
        self.total = total

    def tree_flatten(self):
        return (self.total,), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls(*leaves)


@ox.call.register
def _(obj: Sum, x):
    return x + obj.total


@ox.update.register
def _(obj: Sum, x):
    return Sum(obj.total + 1)


def test_a_type_from_outside_has_a_spec_wherever_it_stands():
    affine = Affine(1.0)
    for obj in (affine, [affine, jnp.sin], nn.Serial.of(affine, jnp.sin), nn.Residual.of(affine)):
        assert ox.spec(obj)(ox.ArraySpec(3)) == ox.ArraySpec(3)
    model = ox.init(nn.Serial.of(affine, counter))(KEY, X)
    assert jax.jit(ox.call)(model, X).tolist() == [2, 2, 2]
    assert ox.init(affine)(KEY, X) is affine and ox.init([affine])(KEY, ox.ArraySpec(3)) == [affine]


@WAYS
def test_call_and_update_follow_what_is_registered_for_call_and_for_update(way):
    total = Sum(jnp.float32(0))
    assert way(ox.update)(total, X).total == 1
    y, (new, last) = way(ox.call_and_update)([total, counter_module()], X)
    assert new.total == 1 and last.n == 1 and y.tolist() == [1, 1, 1]
    chain = ox.init(nn.Serial.of(total, counter, total))(KEY, X)
    chain = way(ox.update)(way(ox.update)(chain, X), X)
    assert [float(v) for v in ox.named_leaves(chain).values()] == [2, 2, 2]


def counter_module():
    return ox.init(counter)(KEY, X)


def test_spec_is_registered_like_the_others():
    class Mine:
        pass

    ox.spec.register(Mine, lambda obj: lambda *specs: ox.Shape(7))
    assert ox.spec(Mine())(ox.Shape(())) == ox.Shape(7)
    assert ox.spec([Mine(), jnp.sin])(X) == ox.Shape(7) and ox.spec((Mine(),))(X) == (ox.Shape(7),)


# Layers -------------------------------------------------------------------------------------------


def test_layer_params_are_checked_and_iterable():
    params, info, state = made = nn.LayerParams({"a": 1}, {"b": 2}, {"c": 3})
    assert (params, info, state) == (made.params, made.info, made.state)

    class Wrong(nn.Layer):
        w: jax.Array = ox.param()

        @classmethod
        def initialize(cls, init_key, in_spec):
            return nn.LayerParams(state={"w": jnp.ones(in_spec.shape)})

        def call(self, x):
            return x

    with pytest.raises(TypeError, match=r"Wrong.initialize lists `w` under `state=`.*`params`"):
        ox.init(Wrong.of())(KEY, X)


def test_the_state_of_a_chain_is_that_of_its_layers():
    model = ox.init(nn.Dense.of(3) >> nn.Serial.of(nn.BatchNorm.of(), jnp.sin))(KEY, X)
    assert list(model.state) == ["layers"] and model.state["layers"][0] == {}
    assert list(model.state["layers"][1]) == ["mean", "variance"]
    new = model.replace(state=jax.tree.map(lambda x: x + 1, model.state))
    assert (
        new.layers[1].mean.tolist() == [1, 1, 1] and new.layers[0].kernel is model.layers[0].kernel
    )
    assert ox.init(nn.Serial.of(jnp.sin))(KEY, X).state == {}
