"""Summaries: counts, outputs and operations against known ones, as text, data and HTML."""

import html.parser
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import oryxstate as ox
from oryxstate import nn


def rows(model, *inputs, **options):
    return {row.path: row for row in ox.summary(model, *inputs, **options).rows}


def spec(*shape):
    return ox.ArraySpec(shape)


def test_text_against_known_counts():
    chain = nn.Dense.of(32) >> nn.BatchNorm.of() >> jax.nn.relu >> nn.Dense.of(10)
    assert repr(ox.summary(chain, spec(16))) == (
        "path        class       output        params   state   bytes   FLOPs\n"
        "────────────────────────────────────────────────────────────────────\n"
        "(model)     Serial      float32[10]      938      64   4,008   1,898\n"
        "layers[0]   Dense       float32[32]      544       0   2,176   1,056\n"
        "layers[1]   BatchNorm   float32[32]       64      64     512     160\n"
        "layers[2]   Lambda      float32[32]        0       0       0      32\n"
        "layers[3]   Dense       float32[10]      330       0   1,320     650"
    )


@pytest.mark.parametrize(("batch", "m", "n"), [(1, 2, 3), (8, 16, 32), (5, 7, 11)])
def test_a_dense_layer_costs_2mn_for_each_row(batch, m, n):
    found = rows(nn.Dense.of(n, use_bias=False), spec(batch, m))
    assert found[""].flops == 2 * batch * m * n
    assert rows(nn.Dense.of(n), spec(batch, m))[""].flops == 2 * batch * m * n + batch * n


@pytest.mark.parametrize("remat", [False, True])
def test_the_body_of_a_scan_counts_as_often_as_it_runs(remat):
    layer = nn.Dense.of(8, use_bias=False)
    found = rows(nn.Repeat.of(nn.Repeat.of(layer, 3, remat=remat), 5), spec(4, 8))
    once = 2 * 4 * 8 * 8
    assert found["layers.layers"].flops == once
    assert 15 * once <= found[""].flops <= 15 * once + 100  # and the counters of the loops
    assert 3 * once <= found["layers"].flops <= 3 * once + 50
    assert found["layers.layers"].params == 15 * 64


class Branches(ox.Module):
    dense: ox.Module

    def call(self, x):
        return jax.lax.cond(
            x[0] > 0,
            lambda: self.dense(x),
            lambda: jax.lax.fori_loop(0, 3, lambda _, h: self.dense(h), x),
        )


def test_of_a_cond_the_most_expensive_branch_counts():
    dense = ox.init(nn.Dense.of(8, use_bias=False))(jax.random.key(0), jnp.ones(8))
    found = rows(Branches(dense), spec(8))
    assert 3 * 128 <= found[""].flops <= 3 * 128 + 40 and found["dense"].flops == 128


class Mapped(ox.Module):
    encoder: ox.Module
    unused: ox.Module

    def call(self, x, *, training):
        return jax.vmap(lambda x: self.encoder(x, training=False))(x)


def mapped(key=0):
    encoder = ox.init(nn.Dense.of(4) >> nn.BatchNorm.of())(jax.random.key(key), jnp.ones(3))
    return Mapped(encoder, ox.init(nn.Dense.of(2))(jax.random.key(0), jnp.ones(3)))


def test_abstract_models_vmaps_and_modules_that_are_not_called():
    for model in (mapped(), jax.eval_shape(mapped)):
        for _ in range(2):  # layers that JAX or the library has seen before are shown as well
            found = rows(model, spec(5, 3), training=True)
            assert found[""].out == spec(5, 4) and found["encoder"].out == spec(4)
            assert found["encoder.layers[1]"].out == spec(4)
            assert (found["unused"].out, found["unused"].flops) == (None, None)
            assert found["unused"].params == 8 and found["encoder"].state == 8
            assert found["encoder.layers[0]"].flops == 28 and found[""].flops == 5 * (28 + 12) + 8


def test_functions_and_containers_are_shown_by_path():
    def f(x, init_key=None):
        ox.variable(jnp.zeros((), int), name="n")
        ox.assign(jnp.ones((), int), name="n")
        return ox.init(nn.Dense.of(3), name="dense")(init_key, x)(x)

    found = rows([f, {"b": nn.Dense.of(2), "a": nn.Dense.of(7)}], spec(2, 3))
    assert list(found) == ["", "[0]", "[0].dense", "[1]['a']", "[1]['b']"]
    assert found["[0]"].kind == "FunctionModule" and found["[0]"].state == 1
    assert found["[0].dense"].out == spec(2, 3) and found["[0].dense"].flops == 42
    assert found["[1]['a']"].out == spec(2, 7) and found["[1]['b']"].flops == 28
    assert found[""].out == {"a": spec(2, 7), "b": spec(2, 2)} and found[""].kind == "list"


def test_keywords_of_inner_calls_rule_and_keys_are_abstract():
    model = nn.Dense.of(4) >> nn.Dropout.of(0.5)
    training = rows(model, spec(4), training=True, rng=jax.random.key(0))
    assert training["layers[1]"].flops > rows(model, spec(4))["layers[1]"].flops == 0


def test_equinox_modules_are_shown_without_outputs():
    found = rows(eqx.nn.MLP(2, 2, 4, 1, key=jax.random.key(0)), spec(2))
    assert list(found) == ["", "layers[0]", "layers[1]"]
    assert found[""].out == spec(2) and found[""].params == 22
    assert found["layers[0]"].params == 12 and found["layers[0]"].out is None


def test_modules_below_a_depth_are_folded():
    model = nn.Repeat.of(nn.Residual.of(nn.Dense.of(3)), 4)
    whole = rows(model, spec(3))
    assert list(whole) == ["", "layers", "layers.body"]
    assert [row.depth for row in whole.values()] == [0, 1, 2]
    assert rows(model, spec(3), depth=1) == {k: whole[k] for k in ("", "layers")}
    assert rows(model, spec(3), depth=0) == {"": whole[""]}


def test_without_inputs_there_are_no_outputs():
    found = rows(mapped())
    assert all((row.out, row.flops) == (None, None) for row in found.values())
    assert found[""].bytes == 4 * (found[""].params + found[""].state) == 4 * (32 + 8)
    with pytest.raises(
        ValueError, match=r"before it has seen an input\. .*`ox\.summary\(template, "
    ):
        ox.summary(nn.Dense.of(3))


def test_a_call_that_fails_says_where_and_leaves_no_trace():
    model = ox.init(nn.Dense.of(2) >> nn.Dense.of(2))(jax.random.key(0), jnp.ones(3))
    with pytest.raises(ValueError, match=r"Dense at 'layers\[0\]' takes \[\.\.\., 3\]"):
        ox.summary(model, spec(4))
    assert model(jnp.ones(3)).shape == (2,) and rows(model, spec(3))[""].params == 14


class Tags(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.cells, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.cells[-1] += data


class Odd(ox.Module):
    parts: dict

    def call(self, x):
        return self.parts["<b>"](x)


def test_html_has_the_cells_of_the_table_escaped():
    dense = ox.init(nn.Dense.of(2))(jax.random.key(0), jnp.ones(3))
    summary = ox.summary(Odd({"<b>": dense}), spec(3))
    table = Tags(summary._repr_html_())
    assert table.open == []
    assert table.cells[:7] == ["path", "class", "output", "params", "state", "bytes", "FLOPs"]
    assert table.cells[7:14] == ["(model)", "Odd", "float32[2]", "8", "0", "32", "14"]
    assert table.cells[14] == "parts['<b>']" and len(table.cells) == 21
    assert "<b>" not in summary._repr_html_()


def test_rich_prints_the_table_and_without_it_the_error_says_what_to_install(monkeypatch):
    import rich.table

    summary = ox.summary(mapped(), spec(5, 3), training=True)
    assert isinstance(summary.__rich__(), rich.table.Table)
    monkeypatch.setitem(sys.modules, "rich.table", None)
    with pytest.raises(ImportError, match=r"needs `rich`.*`pip install 'oryxstate\[train\]'`"):
        repr(summary)
    assert summary.rows and summary._repr_html_()
