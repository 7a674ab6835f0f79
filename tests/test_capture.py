"""What is captured is what the program computes, under every transformation (S16)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, PartitionSpec

import oryxstate as ox
from oryxstate import nn

X = jnp.float32(0.3)
KEYS = jax.random.split(jax.random.key(0), 2)
WAYS = pytest.mark.parametrize("way", [lambda f: f, jax.jit], ids=["eager", "jitted"])
MESH = Mesh(np.array(jax.devices()[:2]), ("device",))


class Cell(ox.Module):
    w: jax.Array = ox.param(default_factory=lambda: jnp.float32(0.5))
    n: jax.Array = ox.state(default_factory=lambda: jnp.float32(0))

    def call(self, x):
        self.assign(n=self.n + 1)
        return jnp.tanh(ox.sow(self.w * x, name="h")) + self.n


class Net(ox.Module):
    cell: Cell
    run: object = ox.static()

    def call(self, x):
        return self.run(self.cell, x)


def by_hand(w, n, x):
    """`(h, output, new n)` of a call of the cell."""
    h = w * x
    return h, jnp.tanh(h) + n + 1, n + 1


def chain(x, count):
    """What consecutive calls sow and return."""
    hs, ys, n = [], [], 0.0
    for _ in range(count):
        h, x, n = by_hand(0.5, n, x)
        hs, ys = [*hs, h], [*ys, x]
    return np.array(hs), np.array(ys)


def each(xs):
    """Calls of separate examples, which start from one state."""
    return tuple(np.array([by_hand(0.5, 0.0, x)[i] for x in xs]) for i in (0, 1))


def assert_is(found, want):
    """Equal in shape too: a number that is captured twice is a list, and not that number."""
    assert np.shape(found) == np.shape(want)
    np.testing.assert_allclose(found, want, atol=1e-6)


def scan(cell, x, **options):
    return lax.scan(lambda h, _: (cell(h), None), x, None, length=3, **options)[0]


def custom_vjp(cell, x):
    f = jax.custom_vjp(lambda x: cell(x))
    f.defvjp(lambda x: (f(x), None), lambda _, bar: (bar,))
    return f(x)


def custom_jvp(cell, x):
    f = jax.custom_jvp(lambda x: cell(x))
    f.defjvp(lambda x, dx: (f(*x), *dx))
    return f(x)


def custom_vmap(cell, x):
    f = jax.custom_batching.custom_vmap(lambda x: cell(x))
    f.def_vmap(lambda size, mapped, x: (2 * x, True))
    return jax.vmap(f)(jnp.stack([x, x + 1])).sum()


def shard_map(cell, x):
    whole = PartitionSpec()
    return jax.shard_map(cell, mesh=MESH, in_specs=whole, out_specs=whole)(x)


def solve(cell, x):
    return lax.custom_linear_solve(lambda z: 2 * z, x, lambda _, b: 0 * cell(b) + b / 2)


def root(cell, x):
    return lax.custom_root(
        lambda z: z - x, x, lambda f, z: z - f(z) + 0 * cell(z), lambda f, y: y / f(1.0)
    )


def mapped(f, cell, x):
    return jax.vmap(partial(f, cell))(jnp.stack([x, x + 1])).sum()


def call(cell, x):
    return cell(x)


PLAIN = by_hand(0.5, 0.0, X)[:2]
EXAMPLES = each([X, X + 1])
TABLE = {
    "plain": (call, PLAIN),
    "jit": (lambda c, x: jax.jit(c)(x), PLAIN),
    "jit argument": (lambda c, x: jax.jit(call)(c, x), PLAIN),
    "checkpoint": (lambda c, x: jax.checkpoint(c)(x), PLAIN),
    "checkpoint, differentiated": (lambda c, x: jax.grad(jax.checkpoint(c))(x), PLAIN),
    "grad": (lambda c, x: jax.grad(c)(x), PLAIN),
    "jvp": (lambda c, x: jax.jvp(c, (x,), (x,))[1], PLAIN),
    "vjp": (lambda c, x: jax.vjp(c, x)[1](x)[0], PLAIN),
    "linearize": (lambda c, x: jax.linearize(c, x)[1](x), PLAIN),
    "custom_jvp": (custom_jvp, PLAIN),
    "custom_vjp": (custom_vjp, PLAIN),
    "custom_jvp, differentiated": (lambda c, x: jax.grad(partial(custom_jvp, c))(x), PLAIN),
    "custom_vjp, differentiated": (lambda c, x: jax.grad(partial(custom_vjp, c))(x), PLAIN),
    "custom_linear_solve": (solve, PLAIN),
    "custom_root": (root, PLAIN),
    "shard_map": (shard_map, PLAIN),
    "same in both branches": (lambda c, x: lax.cond(x > 0, c, lambda x: c(2 * x), x), PLAIN),
    "scan": (scan, chain(X, 3)),
    "scan, unrolled": (partial(scan, unroll=2), chain(X, 3)),
    "scan, differentiated": (lambda c, x: jax.grad(partial(scan, c))(x), chain(X, 3)),
    "scan of checkpoint": (lambda c, x: scan(jax.checkpoint(c), x), chain(X, 3)),
    "fori_loop": (lambda c, x: lax.fori_loop(0, 3, lambda _, h: c(h), x), chain(X, 3)),
    "vmap": (partial(mapped, call), EXAMPLES),
    "vmap, differentiated": (lambda c, x: jax.grad(partial(mapped, call, c))(x), EXAMPLES),
    "vmap of jit": (lambda c, x: mapped(jax.jit(call), c, x), EXAMPLES),
    "custom_vmap, mapped": (custom_vmap, EXAMPLES),
    "vmap of scan": (
        partial(mapped, scan),
        tuple(np.stack(pair) for pair in zip(chain(X, 3), chain(X + 1, 3), strict=True)),
    ),
}


@WAYS
@pytest.mark.parametrize("row", TABLE)
def test_what_is_captured_is_what_is_computed(row, way):
    run, (h, out) = TABLE[row]
    model = Net(Cell(), run)
    capture = way(ox.capture(ox.call_and_update, "cell"))
    for _ in range(2):  # JAX has traced it by the second time
        (y, new), captured = capture(model, X)
        assert_is(captured.sown["cell.h"], h)
        assert_is(captured.outputs["cell"], out)
        assert list(captured.sown) == ["cell.h"] and list(captured.outputs) == ["cell"]
    want, want_new = ox.call_and_update(model, X)
    np.testing.assert_allclose(y, want, atol=1e-6)
    np.testing.assert_allclose(new.cell.n, want_new.cell.n)


@WAYS
def test_calls_in_a_row_are_a_list(way):
    model = Net(Cell(), lambda c, x: c(c(x)))
    hs, ys = chain(X, 2)
    _, captured = way(ox.capture(model, "cell"))(X)
    np.testing.assert_allclose(captured.sown["cell.h"], hs, atol=1e-6)
    np.testing.assert_allclose(captured.outputs["cell"], ys, atol=1e-6)
    np.testing.assert_allclose(captured.inputs["cell"], [[X], [ys[0]]], atol=1e-6)


def sometimes(cell, x):
    return lax.scan(lambda h, i: (lax.cond(i == 1, cell, lambda x: x, h), None), x, jnp.arange(3))[
        0
    ]


def loop(count, cell, x):
    return lax.while_loop(lambda s: s[0] < count, lambda s: (s[0] + 1, cell(s[1])), (0, x))[1]


MAYBE = {
    "branch that is taken": (lambda c, x: lax.cond(x > 0, c, lambda x: x, x), True),
    "branch that is not": (lambda c, x: lax.cond(x < 0, c, lambda x: x, x), False),
    "branch of a branch": (
        lambda c, x: lax.cond(x > 0, lambda x: lax.cond(x < 0, c, lambda x: x, x), lambda x: x, x),
        False,
    ),
    "in one iteration": (sometimes, [False, True, False]),
    "while_loop": (partial(loop, 1), True),
    "while_loop that does not run": (partial(loop, 0), False),
    "while_loop in one": (lambda c, x: loop(1, partial(loop, 1, c), x), True),
}


@WAYS
@pytest.mark.parametrize("row", MAYBE)
def test_what_may_not_be_there_says_whether_it_is(row, way):
    run, taken = MAYBE[row]
    found = way(ox.capture(Net(Cell(), run)))(X)[1].sown["cell.h"]
    assert isinstance(found, ox.Maybe)
    assert_is(found.taken, taken)
    assert_is(found.value, np.where(taken, PLAIN[0], 0))


def test_a_while_loop_keeps_the_last():
    found = ox.capture(Net(Cell(), partial(loop, 3)))(X)[1].sown["cell.h"]
    assert_is(found.value, chain(X, 3)[0][-1])


def test_branches_that_sow_different_things():
    def run(cell, x):
        return lax.cond(
            x > 0,
            lambda x: ox.sow(x, name="a"),
            lambda x: ox.sow(jnp.stack([x, x]), name="a")[0] + ox.sow(1, name="b"),
            x,
        )

    sown = jax.jit(ox.capture(Net(Cell(), run)))(X)[1].sown
    assert [m.value.shape for m in sown["a"]] == [(2,), ()]  # the first branch is the false one
    assert [bool(m.taken) for m in [*sown["a"], sown["b"]]] == [False, True, False]


def test_each_device_has_its_own():
    def run(cell, x):
        def body(x):
            ox.sow(x + lax.axis_index("device").astype(x.dtype), name="x")
            return x

        along = PartitionSpec("device")
        return jax.shard_map(body, mesh=MESH, in_specs=along, out_specs=along)(jnp.ones(2)).sum()

    found = jax.jit(ox.capture(Net(Cell(), run)))(X)[1].sown["x"]
    np.testing.assert_array_equal(found, [[1.0], [2.0]])


@pytest.mark.parametrize("kind", ["scan", "reverse", "map", "repeat"])
def test_layers_of_a_stack_are_stacked(kind):
    cells = Cell(jnp.arange(3.0), jnp.zeros(3))
    runs = {
        "scan": lambda c, x: lax.scan(lambda h, cell: (cell(h), None), x, c)[0],
        "reverse": lambda c, x: lax.scan(lambda h, cell: (cell(h), None), x, c, reverse=True)[0],
        "map": lambda c, x: lax.map(lambda cell: cell(x), c).sum(),
    }
    if kind == "repeat":
        model, path = nn.Repeat(cells, 3), "layers"
    else:
        model, path = Net(cells, runs[kind]), "cell"
    captured = jax.jit(ox.capture(model, path))(X)[1]
    x, want = X, {}
    for i in reversed(range(3)) if kind == "reverse" else range(3):
        want[i] = by_hand(cells.w[i], 0.0, X if kind == "map" else x)[:2]
        x = want[i][1]
    hs, ys = zip(*(want[i] for i in range(3)), strict=True)
    np.testing.assert_allclose(captured.sown[f"{path}.h"], hs, atol=1e-6)
    np.testing.assert_allclose(captured.outputs[path], ys, atol=1e-6)


# Around a capture ---------------------------------------------------------------------------------


def test_a_capture_may_be_transformed():
    model = Net(Cell(), scan)
    capture = ox.capture(model)
    xs = jnp.stack([X, X + 1])
    mapped = jax.vmap(lambda x: capture(x)[1].sown["cell.h"])(xs)
    np.testing.assert_allclose(mapped, [chain(x, 3)[0] for x in xs], atol=1e-6)
    slope = jax.grad(lambda x: capture(x)[1].sown["cell.h"][1])(X)
    np.testing.assert_allclose(slope, 0.25 * (1 - jnp.tanh(0.5 * X) ** 2), atol=1e-6)


def test_captures_nest_and_root_calls_inside_have_paths():
    class Outer(ox.Module):
        net: Net

        def call(self, x):
            y, _ = self.net.call_and_update(x)
            return y

    outer = Outer(Net(Cell(), scan))
    (_, inner), captured = ox.capture(ox.capture(outer, "net.cell"), Net)(X)
    assert list(captured.sown) == list(inner.sown) == ["net.cell.h"]
    assert (list(captured.outputs), list(inner.outputs)) == (["net"], ["net.cell"])


def test_what_jax_has_traced_without_a_capture_is_traced_again():
    count = 0

    @jax.jit
    def f(x):
        nonlocal count
        count += 1
        return ox.sow(2 * x, name="f")

    class Two(ox.Module):
        a: Net
        b: Net

        def call(self, x):
            return self.a(x) + self.b(x)

    net = Net(Cell(), lambda cell, x: f(x))
    two = Two(net, net)
    for _ in range(2):
        two(X)
        assert list(ox.capture(two)(X)[1].sown) == ["a.f", "b.f"]
    assert count == 3  # once without, once for each path


def test_nothing_is_bound_without_a_capture():
    class Silent(Cell):
        def call(self, x):
            self.assign(n=self.n + 1)
            return jnp.tanh(self.w * x) + self.n

    def program(cell):
        return str(jax.make_jaxpr(ox.call_and_update)(Net(cell, scan), X))

    ox.capture(Net(Cell(), scan))(X)
    assert program(Cell()) == program(Silent())


def test_modules_are_selected_by_path_class_and_predicate():
    model = ox.init(nn.Dense.of(3) >> nn.Repeat.of(nn.Dense.of(3), 2) >> nn.Dense.of(2))(
        jax.random.key(0), jnp.ones(3)
    )

    def paths(selection):
        return list(ox.capture(model, selection)(jnp.ones(3))[1].outputs)

    assert paths("layers[*]") == ["layers[0]", "layers[1]", "layers[2]"]
    assert paths("**.layers") == ["layers[1].layers"]
    assert paths("layers[1:]") == ["layers[1]", "layers[2]"]
    assert paths(nn.Dense) == ["layers[0]", "layers[1].layers", "layers[2]"]
    assert paths(lambda path, m: getattr(m, "bias", None) is not None and "0" in path) == [
        "layers[0]"
    ]
    assert paths(["layers[0]", nn.Repeat]) == ["layers[0]", "layers[1]"]
    assert paths("**") == ["layers[0]", "layers[1].layers", "layers[1]", "layers[2]", ""]


def test_paths_of_functions_and_containers():
    def f(x, init_key=None):
        w = ox.variable(jax.random.normal(init_key, (3,)), name="w")
        dense = ox.init(nn.Dense.of(2), name="d")(init_key, x)
        return dense(ox.sow(w * x, name="h"))

    x = jnp.ones(3)
    chain = ox.init(nn.Dense.of(3) >> f)(jax.random.key(0), x)
    listed = ox.init([nn.Dense.of(3), f])(jax.random.key(0), x)
    fanned = ox.init({"a": f, "b": (f, nn.Dense.of(3) >> f)})(jax.random.key(0), x)
    for model, paths, sown in [
        (chain, ["layers[0]", "layers[1].d", "layers[1]", ""], ["layers[1].h"]),
        (listed, ["[0]", "[1].d", "[1]"], ["[1].h"]),
        (
            fanned,
            ["['a'].d", "['a']", "['b'][0].d", "['b'][0]"]
            + [f"['b'][1]{path}" for path in (".layers[0]", ".layers[1].d", ".layers[1]", "")],
            ["['a'].h", "['b'][0].h", "['b'][1].layers[1].h"],
        ),
    ]:
        captured = ox.capture(ox.call, "**")(model, x)[1]
        assert (list(captured.outputs), list(captured.sown)) == (paths, sown)
        # The key of an initialization is mapped over by the library; that axis is nobody's.
        assert {v.shape for v in captured.sown.values()} == {(3,)}
        assert all(v.shape == (2,) for p, v in captured.outputs.items() if p.endswith(".d"))


# Gradients ----------------------------------------------------------------------------------------


GRADIENTS = {
    "plain": (call, (1,)),
    "scan": (scan, (3,)),
    "jit of scan": (lambda c, x: jax.jit(scan)(c, x), (3,)),
    "vmap": (partial(mapped, call), (2,)),
    "vmap of scan": (partial(mapped, scan), (2, 3)),
    "scan of vmap": (
        lambda c, x: scan(jax.vmap(c), jnp.stack([x, x + 1])).sum(),
        (3, 2),
    ),
    "checkpoint": (lambda c, x: jax.checkpoint(c)(x), (1,)),
    "twice": (lambda c, x: c(c(x)), (2,)),
}


@WAYS
@pytest.mark.parametrize("row", GRADIENTS)
def test_cotangents_of_outputs(row, way):
    """Compared with the slope along noise that is added to each output."""
    run, shape = GRADIENTS[row]
    model = Net(Cell(), run)
    step = ox.capture(jax.grad(lambda m: ox.call(m, X), allow_int=True), "cell", gradients=True)
    found = np.array(way(step)(model)[1].gradients["cell"]).reshape(shape)

    def moved(noise):
        def edit(y, site):
            index = site.call if row in ("scan", "jit of scan", "twice") else 0
            if "vmap" in row:
                index = (site.example, site.call) if row == "vmap of scan" else site.example
                index = (site.call, site.example) if row == "scan of vmap" else index
            return y + noise[index]

        return ox.intercept(ox.call, "cell", edit)(model, X)

    np.testing.assert_allclose(found, jax.grad(moved)(jnp.zeros(shape)), atol=1e-5)


def test_a_random_key_of_a_branch():
    def run(cell, x):
        return lax.cond(x > 0, lambda x: x, lambda x: (ox.sow(KEYS, name="keys"), x)[1], x)

    found = jax.jit(ox.capture(Net(Cell(), run)))(X)[1].sown["keys"]
    assert found.value.shape == (2,) and found.value.dtype == KEYS.dtype and not found.taken


@WAYS
def test_a_backward_pass_may_sow(way):
    def run(cell, x):
        f = jax.custom_vjp(lambda x: cell(x))

        def backward(x, bar):
            return (ox.sow(bar * cell.w, name="bar"),)

        f.defvjp(lambda x: (f(x), x), backward)
        return jax.grad(f)(x)

    sown = way(ox.capture(Net(Cell(), run)))(X)[1].sown
    np.testing.assert_allclose([v for k, v in sown.items() if k.endswith("bar")], [0.5])


# What is refused ----------------------------------------------------------------------------------


def test_a_selection_that_names_nothing():
    model = Net(Cell(), scan)
    with pytest.raises(ValueError, match=r"is selected by 'cel'. Did you mean 'cell'"):
        ox.capture(model, "cel")(X)
    with pytest.raises(ValueError, match="Modules that were called: 'cell', ''"):
        ox.capture(model, nn.Dense)(X)
    with pytest.raises(TypeError, match="modules are selected by a path"):
        ox.capture(model, 3)
    with pytest.raises(TypeError, match=r"`ox.capture` takes a module or a function"):
        ox.capture(3)
    with pytest.raises(TypeError, match=r"ox.sow\(value, name='hidden'\)"):
        ox.sow(1.0, name="")


def test_a_predicate_is_refused():
    def run(cell, x):
        return lax.while_loop(lambda x: ox.sow(x, name="x") < 2, lambda x: x + 1, x)

    with pytest.raises(ox.EffectError, match=r"captured in the predicate of `lax.while_loop`"):
        ox.capture(Net(Cell(), run))(X)


def test_a_derivative_that_is_taken_outside_is_refused():
    model = Net(Cell(), call)
    step = ox.capture(model, "cell", gradients=True)
    with pytest.raises(ox.EffectError, match=r"after `ox.capture` has returned"):
        jax.grad(lambda x: step(x)[0])(X)


def test_the_host_sees_no_capture():
    def run(cell, x):
        shape = jax.ShapeDtypeStruct((), np.float32)
        return jax.pure_callback(lambda x: np.float32(ox.sow(x, name="host")), shape, x)

    assert not ox.capture(Net(Cell(), run))(X)[1].sown
