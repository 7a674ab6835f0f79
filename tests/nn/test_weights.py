"""Weights in PyTorch's layouts, whose layers are written here in NumPy after its documentation.

Those of Equinox and Flax are compared with the libraries themselves, in parity_weights.py.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oryxstate as ox
from oryxstate import mapping, nn

DRAW = np.random.default_rng(0)


def drawn(*shape):
    return DRAW.normal(size=shape).astype("float32")


def linear(p, x, prefix=""):
    return x @ p[f"{prefix}weight"].T + p[f"{prefix}bias"]


def conv(p, x, stride=2, groups=1):
    """One example `[in, length]`, cross-correlated without padding."""
    weight, out = p["weight"], []
    per, each = weight.shape[0] // groups, weight.shape[1]
    for o in range(weight.shape[0]):
        part = x[(o // per) * each : (o // per + 1) * each]
        starts = range(0, x.shape[1] - weight.shape[2] + 1, stride)
        out.append([(part[:, i : i + weight.shape[2]] * weight[o]).sum() for i in starts])
    return np.array(out) + p["bias"][:, None]


def conv_transpose(p, x, stride=2, padding=1, groups=1):
    """One example `[in, length]`; `weight` is `[in, out / groups, kernel]`."""
    weight, length = p["weight"], x.shape[1]
    each, size = weight.shape[1], weight.shape[2]
    full = np.zeros((each * groups, (length - 1) * stride + size), "float32")
    for c in range(weight.shape[0]):
        group = c // (weight.shape[0] // groups)
        for i in range(length):
            rows = slice(group * each, (group + 1) * each)
            full[rows, i * stride : i * stride + size] += x[c, i] * weight[c]
    return full[:, padding : full.shape[1] - padding] + p["bias"][:, None]


def norm(p, x, axes):
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * p["weight"] + p["bias"]


def batch_norm(p, x):
    scale = p["weight"] / np.sqrt(p["running_var"] + 1e-5)
    return (x - p["running_mean"]) * scale + p["bias"]


def group_norm(p, x):
    parts = x.reshape(x.shape[0], 2, -1)
    mean, variance = parts.mean((0, 2), keepdims=True), parts.var((0, 2), keepdims=True)
    normal = ((parts - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)
    return normal * p["weight"] + p["bias"]


def weight_normed(p):
    length, v = (p[f"parametrizations.weight.original{i}"] for i in (0, 1))
    return length * v / np.sqrt((v**2).sum((1, 2), keepdims=True))


def spectral_normed(p):
    weight = p["parametrizations.weight.original"]
    u, v = (p[f"parametrizations.weight.0.{name}"] for name in ("_u", "_v"))
    return weight / (u @ weight.reshape(len(weight), -1) @ v)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(p, x, heads=2):
    if "in_proj_weight" in p:
        weights = np.split(p["in_proj_weight"], 3)
    else:
        weights = [p[f"{name}_proj_weight"] for name in "qkv"]
    biases = np.split(p["in_proj_bias"], 3)
    x = x if isinstance(x, tuple) else (x, x)
    inputs = (x[0], x[1], x[1])
    q, k, v = (
        (y @ w.T + b).reshape(len(y), heads, -1).swapaxes(0, 1)
        for y, w, b in zip(inputs, weights, biases, strict=True)
    )
    y = softmax(q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1])) @ v
    return linear(p, y.swapaxes(0, 1).reshape(len(x[0]), -1), "out_proj.")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gates(p, x, h, suffix, count):
    i = x @ p[f"weight_ih{suffix}"].T + p[f"bias_ih{suffix}"]
    g = h @ p[f"weight_hh{suffix}"].T + p[f"bias_hh{suffix}"]
    return np.split(i, count), np.split(g, count)


def rnn_step(p, x, carry, suffix=""):
    (i,), (h,) = gates(p, x, carry[0], suffix, 1)
    return (np.tanh(i + h),)


def gru_step(p, x, carry, suffix=""):
    (ir, iz, i_n), (hr, hz, hn) = gates(p, x, carry[0], suffix, 3)
    z = sigmoid(iz + hz)
    n = np.tanh(i_n + sigmoid(ir + hr) * hn)
    return ((1 - z) * n + z * carry[0],)


def lstm_step(p, x, carry, suffix=""):
    i, f, g, o = (a + b for a, b in zip(*gates(p, x, carry[0], suffix, 4), strict=True))
    c = sigmoid(f) * carry[1] + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def sequence(step, suffix="_l0", reverse=False):
    def run(p, xs):
        carry = (np.zeros(H, "float32"),) * 2
        ys = []
        for x in xs[::-1] if reverse else xs:
            carry = step(p, x, carry, suffix)
            ys.append(carry[0])
        return np.stack(ys[::-1] if reverse else ys)

    return run


def both_ways(p, xs):
    forward = sequence(lstm_step)(p, xs)
    return np.concatenate([forward, sequence(lstm_step, "_l0_reverse", True)(p, xs)], -1)


def parameters(count, features, suffix=""):
    return {
        f"weight_ih{suffix}": drawn(count * H, features),
        f"weight_hh{suffix}": drawn(count * H, H),
        f"bias_ih{suffix}": drawn(count * H),
        f"bias_hh{suffix}": drawn(count * H),
    }


def with_bias(weight, size=None):
    return {"weight": weight, "bias": drawn(len(weight) if size is None else size)}


H = 3
LAST = np.swapaxes  # PyTorch has channels first
ATTENTION = {"in_proj_bias": drawn(12), "out_proj.weight": drawn(4, 4), "out_proj.bias": drawn(4)}
# The template, the state dict, the input, and the output that PyTorch documents.
ROWS = {
    "Linear": (nn.Dense.of(4), with_bias(drawn(4, 3)), drawn(5, 3), linear),
    "Conv": (
        nn.Conv.of(4, 3, strides=2),
        with_bias(drawn(4, 2, 3)),
        drawn(9, 2),
        lambda p, x: conv(p, x.T).T,
    ),
    "Conv in groups": (
        nn.Conv.of(4, 3, strides=2, groups=2),
        with_bias(drawn(4, 3, 3)),
        drawn(9, 6),
        lambda p, x: conv(p, x.T, groups=2).T,
    ),
    "ConvTranspose": (
        nn.ConvTranspose.of(4, 3, strides=2, padding=1),
        with_bias(drawn(2, 4, 3), 4),
        drawn(5, 2),
        lambda p, x: conv_transpose(p, x.T).T,
    ),
    "ConvTranspose in groups": (
        nn.ConvTranspose.of(6, 3, strides=2, padding=1, groups=2),
        with_bias(drawn(4, 3, 3), 6),
        drawn(5, 4),
        lambda p, x: conv_transpose(p, x.T, groups=2).T,
    ),
    "Conv of each channel": (
        nn.DepthwiseConv.of(3, strides=2, multiplier=2),
        with_bias(drawn(4, 1, 3)),
        drawn(9, 2),
        lambda p, x: conv(p, x.T, groups=2).T,
    ),
    "weight_norm": (
        nn.WeightNorm.of(nn.Conv.of(4, 3, strides=2)),
        {
            "parametrizations.weight.original0": drawn(4, 1, 1),
            "parametrizations.weight.original1": drawn(4, 2, 3),
            "bias": drawn(4),
        },
        drawn(9, 2),
        lambda p, x: conv({"weight": weight_normed(p), "bias": p["bias"]}, x.T).T,
    ),
    "spectral_norm": (
        nn.SpectralNorm.of(nn.Conv.of(4, 3, strides=2)),
        {
            "parametrizations.weight.original": drawn(4, 2, 3),
            "parametrizations.weight.0._u": drawn(4),
            "parametrizations.weight.0._v": drawn(6),
            "bias": drawn(4),
        },
        drawn(9, 2),
        lambda p, x: conv({"weight": spectral_normed(p), "bias": p["bias"]}, x.T).T,
    ),
    "Bilinear": (
        nn.Bilinear.of(4),
        with_bias(drawn(4, 2, 3)),
        (drawn(2), drawn(3)),
        lambda p, x: np.einsum("kij,i,j->k", p["weight"], *x) + p["bias"],
    ),
    "Embedding": (
        nn.Embedding.of(5, 4),
        {"weight": drawn(5, 4)},
        np.array([3, 0]),
        lambda p, x: p["weight"][x],
    ),
    "BatchNorm": (
        nn.BatchNorm.of(),
        with_bias(drawn(3))
        | {"running_mean": drawn(3), "running_var": abs(drawn(3)), "num_batches_tracked": 7},
        drawn(5, 3),
        batch_norm,
    ),
    "LayerNorm": (nn.LayerNorm.of(), with_bias(drawn(3)), drawn(5, 3), lambda p, x: norm(p, x, -1)),
    "RMSNorm": (
        nn.RMSNorm.of(),
        {"weight": drawn(3)},
        drawn(5, 3),
        lambda p, x: x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * p["weight"],
    ),
    "InstanceNorm": (
        nn.InstanceNorm.of(),
        with_bias(drawn(4)),
        drawn(5, 4),
        lambda p, x: norm(p, x, 0),
    ),
    "GroupNorm": (nn.GroupNorm.of(2), with_bias(drawn(4)), drawn(5, 4), group_norm),
    "PReLU": (
        nn.PReLU.of(),
        {"weight": drawn(1)},
        drawn(5),
        lambda p, x: np.where(x >= 0, x, p["weight"] * x),
    ),
    "MultiheadAttention": (
        nn.MultiHeadAttention.of(2),
        {"in_proj_weight": drawn(12, 4), **ATTENTION},
        drawn(5, 4),
        attention,
    ),
    "MultiheadAttention to another context": (
        nn.MultiHeadAttention.of(2),
        {"q_proj_weight": drawn(4, 4), "k_proj_weight": drawn(4, 6), "v_proj_weight": drawn(4, 6)}
        | ATTENTION,
        (drawn(5, 4), drawn(3, 6)),
        attention,
    ),
    "RNNCell": (
        nn.SimpleRNNCell.of(H),
        parameters(1, 2),
        drawn(2),
        lambda p, x: rnn_step(p, x, np.zeros((1, H)))[0],
    ),
    "GRUCell": (
        nn.GRUCell.of(H),
        parameters(3, 2),
        drawn(2),
        lambda p, x: gru_step(p, x, np.zeros((1, H)))[0],
    ),
    "LSTMCell": (
        nn.LSTMCell.of(H),
        parameters(4, 2),
        drawn(2),
        lambda p, x: lstm_step(p, x, np.zeros((2, H)))[0],
    ),
    "RNN": (
        nn.RNN.of(nn.SimpleRNNCell.of(H)),
        parameters(1, 2, "_l0"),
        drawn(4, 2),
        sequence(rnn_step),
    ),
    "GRU": (nn.RNN.of(nn.GRUCell.of(H)), parameters(3, 2, "_l0"), drawn(4, 2), sequence(gru_step)),
    "LSTM both ways": (
        nn.Bidirectional.of(nn.LSTMCell.of(H)),
        parameters(4, 2, "_l0") | parameters(4, 2, "_l0_reverse"),
        drawn(4, 2),
        both_ways,
    ),
    "Sequential": (
        nn.Dense.of(4) >> jax.nn.relu >> nn.Dense.of(2),
        {
            f"{i}.{k}": v
            for i, n, m in ((0, 4, 3), (2, 2, 4))
            for k, v in with_bias(drawn(n, m)).items()
        },
        drawn(5, 3),
        lambda p, x: linear(p, np.maximum(linear(p, x, "0."), 0), "2."),
    ),
    "ModuleList": (
        nn.Repeat.of(nn.Dense.of(3), 12),
        {f"{i}.{k}": v / 2 for i in range(12) for k, v in with_bias(drawn(3, 3)).items()},
        drawn(3),
        lambda p, x: [x := linear(p, x, f"{i}.") for i in range(12)][-1],
    ),
}


def run(model, x):
    keywords = {"training": False} if isinstance(model, nn.BatchNorm | nn.SpectralNorm) else {}
    return model(*x, **keywords) if isinstance(x, tuple) else model(x, **keywords)


@pytest.mark.parametrize("name", ROWS)
def test_a_state_dict_gives_the_outputs_of_pytorch_and_comes_back(name):
    template, state_dict, x, theirs = ROWS[name]
    inputs = jax.tree.map(jnp.asarray, x)
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    model = template.init(jax.random.key(0), *inputs)
    rules = nn.torch_mapping(jax.eval_shape(lambda: model))
    loaded = ox.load_weights(model, state_dict, rules)
    expected = theirs(state_dict, x)
    np.testing.assert_allclose(run(loaded, jax.tree.map(jnp.asarray, x)), expected, atol=1e-5)
    back = ox.weights(loaded, mapping.inverse(rules))
    assert set(back) == set(state_dict) - {"num_batches_tracked"}
    for path, value in back.items():
        assert value.shape == state_dict[path].shape, path
    np.testing.assert_allclose(theirs({**state_dict, **back}, x), expected, atol=1e-5)


def model():
    return (nn.Dense.of(4) >> nn.BatchNorm.of()).init(jax.random.key(0), jnp.ones(3))


def test_safetensors_and_back(tmp_path):
    saved = {
        "model": model(),
        "half": jnp.arange(3, dtype=jnp.bfloat16),
        "eighth": jnp.ones(2, jnp.float8_e4m3fn),
        "bits": jnp.array([True, False]),
        "empty": jnp.zeros((0, 2)),
        "key": jax.random.key(1),
    }
    path = tmp_path / "model.safetensors"
    ox.save_weights(path, saved)
    ox.save_weights(path, saved)  # replaces it
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    other = jax.tree.map(
        lambda x: x if x.dtype.name == "key<fry>" else jnp.zeros_like(x),
        {**saved, "key": jax.random.key(2)},
    )
    reports = []
    back = ox.load_weights(other, path, report=reports.append)
    for name, leaf in ox.named_leaves(saved).items():
        if name != "['key']":
            assert ox.named_leaves(back)[name].dtype == leaf.dtype
            np.testing.assert_array_equal(ox.named_leaves(back)[name], leaf)
    assert reports[0].kept == ("['key']",) and back["key"] == other["key"]


def test_other_tools_read_the_file(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    ox.save_weights(tmp_path / "a", model())
    assert numpy.load_file(tmp_path / "a")["layers[0].kernel"].shape == (3, 4)


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_a_damaged_safetensors_file(cut, tmp_path):
    path = tmp_path / "a"
    ox.save_weights(path, model())
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ox.CheckpointError, match="is not a whole safetensors file"):
        ox.load_weights(model(), path)


def test_a_file_that_is_missing_and_one_that_cannot_be_written(tmp_path):
    with pytest.raises(FileNotFoundError):
        ox.load_weights(model(), tmp_path / "none")
    with pytest.raises(ox.CheckpointError, match="none/a' was not written"):
        ox.save_weights(tmp_path / "none" / "a", model())


def test_a_mismatch_lists_all_and_says_what_was_read():
    source = {"layers[0]": {"kernel": np.ones((4, 3), "float32")}, "old": {"bias": np.ones(2)}}
    with pytest.raises(ox.MismatchError) as caught:
        ox.load_weights(model(), source)
    text = str(caught.value)
    assert text.startswith("the dictionary does not fit the model; nothing was loaded.\n  missing:")
    assert "does not fit: 'layers[0].kernel', saved float32[4,3], wanted float32[3,4]" in text
    assert "left over: 'old.bias', float64[2]" in text and text.count("missing:") == 5


def test_a_selection_loads_a_part():
    source = {"layers[0].kernel": np.ones((3, 4)), "layers[0].bias": np.ones(4), "head": np.ones(2)}
    loaded = ox.load_weights(model(), source, select=lambda path: path.startswith("layers[0]"))
    assert float(loaded.layers[0].kernel.sum()) == 12
    assert loaded.layers[0].kernel.dtype == jnp.float32


def test_a_dictionary_that_changes_later_does_not_change_the_model():
    for like in (jnp.ones(1024), np.ones(1024, "float32")):
        source = {"['w']": np.zeros(1024, "float32")}
        loaded = ox.load_weights({"w": like}, source)
        source["['w']"][:] = 5
        assert float(loaded["w"].sum()) == 0


def test_numpy_arrays_from_a_file_may_be_changed(tmp_path):
    ox.save_weights(tmp_path / "a", {"w": np.ones(3)})
    loaded = ox.load_weights({"w": np.zeros(3)}, tmp_path / "a")
    loaded["w"] += 1
    assert loaded["w"].sum() == 6
    assert ox.load_weights(loaded, tmp_path / "a")["w"].sum() == 3


def test_arrays_without_axes_keep_their_shape_in_a_file(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    ox.save_weights(tmp_path / "a", {"count": jnp.array(3), "t": np.ones((2, 3)).T})
    file = numpy.load_file(tmp_path / "a")
    assert file["['count']"].shape == () and file["['t']"].shape == (3, 2)
    assert int(ox.load_weights({"count": jnp.array(0), "t": np.ones((3, 2))}, file)["count"]) == 3


def test_random_keys_of_the_source_are_ignored():
    model = Pair(jnp.zeros(2), jax.random.key(0))
    other = Pair(jnp.ones(2), jax.random.key(1))
    for source in (other, ox.named_leaves(other)):
        loaded = ox.load_weights(model, source)
        assert float(loaded.w.sum()) == 2 and loaded.key == model.key


class Pair(ox.Module):
    w: jax.Array = ox.param()
    key: jax.Array = ox.state()

    def call(self, x):
        return x * self.w


def test_specs_have_no_weights():
    with pytest.raises(TypeError, match=r"'w' is the spec of an array, .* has no value to save"):
        ox.weights(jax.eval_shape(lambda: Pair(jnp.ones(2), jax.random.key(0))))


def test_what_is_not_an_array():
    with pytest.raises(TypeError, match=r"'a\.b' is not an array: str"):
        ox.load_weights(model(), {"a": {"b": "text"}})
    with pytest.raises(ValueError, match=r"two arrays of the dictionary have the path 'a\.b'"):
        ox.load_weights(model(), {"a": {"b": 1}, "a.b": 2})


def test_random_keys_and_python_values_of_a_model_need_no_source():
    model = [Pair(jnp.zeros(2), jax.random.key(0)), 3]
    rules = nn.torch_mapping(model)
    loaded = ox.load_weights(model, {"0.w": np.ones(2, "float32")}, rules)
    assert float(loaded[0].w.sum()) == 2 and loaded[0].key == model[0].key and loaded[1] == 3
    assert set(ox.weights(loaded, mapping.inverse(rules))) == {"0.w"}


def test_layers_inside_a_function_have_its_paths():
    """The paths of a `FunctionModule` lack the name of its field."""

    def net(x):
        head = ox.init(nn.Dense.of(2), name="head")(jax.random.key(0), x)
        return ox.variable(jnp.ones(2), name="scale") * head(x)

    model = ox.init([net])(jax.random.key(0), jnp.ones(3))
    for recipes in (nn.torch_mapping, nn.equinox_mapping, nn.flax_mapping, nn.nnx_mapping):
        there = ox.weights(model, mapping.inverse(recipes(model)))
        loaded = ox.load_weights(model, {k: v + 1 for k, v in there.items()}, recipes(model))
        for old, new in zip(*map(jax.tree.leaves, (model, loaded)), strict=True):
            np.testing.assert_array_equal(new, old + 1)
    torch = ox.weights(model, mapping.inverse(nn.torch_mapping(model)))
    assert set(torch) == {"0.head.weight", "0.head.bias", "0.scale"}


def test_a_repeat_of_a_list_of_layers():
    template = nn.Repeat.of([nn.Dense.of(3), jax.nn.relu], 2)
    model = template.init(jax.random.key(0), jnp.ones(3))
    rules = nn.torch_mapping(model)
    there = ox.weights(model, mapping.inverse(rules))
    assert len(there) == 4 and all(x.shape in ((3, 3), (3,)) for x in there.values())
    loaded = ox.load_weights(model, {k: 2 * v for k, v in there.items()}, rules)
    for old, new in zip(*map(jax.tree.leaves, (model, loaded)), strict=True):
        np.testing.assert_array_equal(new, 2 * old)
