"""Memory and collectives of large transformers on many devices, compiled and not run.

`python benchmarks/scale.py --model 7B --devices 64 --model-axis 8`: XLA compiles the training step
for that many devices of the host, and its program is read: the bytes on each device, the
collectives of a step, and the bytes that each device sends for them. Beside them stands the least
that the strategy needs. docs/explanation/scale.md has the table.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections import Counter
from typing import Any, NamedTuple


class Size(NamedTuple):
    """A decoder: embedding, equal blocks, norm, and an output layer."""

    layers: int
    features: int
    heads: int
    kv_heads: int
    hidden: int
    vocabulary: int = 32_000
    length: int = 2048


SIZES = {
    "7B": Size(32, 4096, 32, 32, 16_384),
    "70B": Size(80, 8192, 64, 8, 43_008),
    "tiny": Size(2, 64, 4, 4, 256, 512, 32),
}
BFLOAT16 = 2  # bytes

# The step -----------------------------------------------------------------------------------------


def lowered(size: Size, mesh: Any, batch_size: int) -> Any:
    """The training step of a model with Adam, lowered for a mesh of "data" and "model"."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    import oryxstate as ox
    from oryxstate import nn, sharding

    optimizer = optax.adam(1e-4)
    rules = {**sharding.FSDP, **sharding.TENSOR_PARALLEL}

    def begin() -> Any:
        attention = nn.MultiHeadAttention.of(
            size.heads,
            kv_heads=size.kv_heads,
            head_features=size.features // size.heads,
            causal=True,
            rotary_base=10_000.0,
            use_bias=False,
        )
        network = nn.MLP.of((size.hidden, size.features), jax.nn.silu, use_bias=False)
        block = nn.TransformerBlock.of(attention, network)
        template = (
            nn.Embedding.of(size.vocabulary, size.features)
            >> nn.Repeat.of(block, size.layers, remat=True)
            >> nn.RMSNorm.of()
            >> nn.Dense.of(size.vocabulary, use_bias=False, axes=("embed", "vocab"))
        )
        spec = jax.ShapeDtypeStruct((size.length,), jnp.int32)
        model = ox.init(nn.MixedPrecision.of(template))(jax.random.key(0), spec)
        return model, optimizer.init(ox.partition(model)[0])

    def step(model: Any, optimizer_state: Any, tokens: Any) -> Any:
        def objective(model: Any) -> Any:
            logits = jax.vmap(model)(tokens[:, :-1])
            right = tokens[:, 1:, None] == jnp.arange(size.vocabulary)
            right = jax.sharding.reshard(right, jax.typeof(logits).sharding)
            chosen = jnp.where(right, logits, 0).sum(-1)
            return (jax.nn.logsumexp(logits, axis=-1) - chosen).mean()

        loss, gradient = ox.value_and_grad(objective)(model)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state)
        return eqx.apply_updates(model, updates), optimizer_state, loss

    state = sharding.abstract(jax.eval_shape(begin), mesh, rules)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    batch = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    tokens = jax.ShapeDtypeStruct((batch_size, size.length + 1), jnp.int32, sharding=batch)
    with jax.set_mesh(mesh):
        return jax.jit(step, out_shardings=(*shardings, None), donate_argnums=(0, 1)).lower(
            *state, tokens
        )


# What the compiled program does -------------------------------------------------------------------

COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
COLLECTIVE = re.compile(r"= (.+?) (all-gather|all-reduce|reduce-scatter|all-to-all)(?:-start)?\(")
OTHER = re.compile(r"= .+? (collective-\w+)(?:-start)?\(")
LOOP = re.compile(r"condition=%?([\w.-]+), body=%?([\w.-]+).*?\"n\":\"(\d+)\"")
CALL = re.compile(r"(?:calls|to_apply)=%?([\w.-]+)")
SHAPE = re.compile(r"(?:f32|bf16|s32|pred|u32|f16)\[([\d,]*)\]")
SENT = {  # by each device of a ring of n, for an output of one byte
    "all-gather": lambda n: (n - 1) / n,
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "reduce-scatter": lambda n: n - 1,
    "all-to-all": lambda n: (n - 1) / n,
}


class Collective(NamedTuple):
    kind: str
    axis: str  # of the mesh
    sent: float  # bytes that each device sends, if elements have two bytes


def collectives(text: str, mesh: Any) -> Counter:
    """How often a step runs each collective of a compiled program."""
    found: dict[str, list[Collective]] = {}
    inside: dict[str, list[tuple[str, int]]] = {}
    name = entry = ""
    for line in text.splitlines():
        if match := COMPUTATION.match(line):
            name = match[2]
            entry = name if match[1] else entry
        elif match := COLLECTIVE.search(line):
            axis = _axis(line, mesh)
            size = sum(_elements(shape) for shape in SHAPE.findall(match[1]))
            sent = BFLOAT16 * size * SENT[match[2]](mesh.shape[axis])
            found.setdefault(name, []).append(Collective(match[2], axis, sent))
        elif match := OTHER.search(line):
            raise ValueError(f"a collective that is not counted here: {line}")
        elif match := LOOP.search(line):
            inside.setdefault(name, []).append((match[2], int(match[3])))
        elif " call(" in line and (match := CALL.search(line)):
            inside.setdefault(name, []).append((match[1], 1))

    def count(name: str, times: int) -> Counter:
        own = Counter({each: 0 for each in found.get(name, ())})
        for each in found.get(name, ()):
            own[each] += times
        for inner, loops in inside.get(name, ()):
            own += count(inner, times * loops)
        return own

    return count(entry, 1)


def _elements(shape: str) -> int:
    total = 1
    for size in filter(None, shape.split(",")):
        total *= int(size)
    return total


def _axis(line: str, mesh: Any) -> str:
    """The mesh axis along which a collective goes."""
    if 1 in mesh.shape.values():
        return max(mesh.shape, key=mesh.shape.get)
    groups = line.split("replica_groups=")[1]
    if named := re.match(r"mesh\[[^]]*\] ?\{'(\w+)'\}", groups):
        return {"axis_0": "data", "axis_1": "model"}.get(named[1], named[1])
    if iota := re.match(r"\[(\d+),(\d+)\]<=\[[\d,]+\](T?)", groups):
        count = int(iota[2])
        axis = "data" if iota[3] or count == mesh.shape["data"] != mesh.shape["model"] else "model"
        if count == mesh.shape[axis]:
            return axis
    raise ValueError(f"groups of devices that are not along one mesh axis: {groups[:80]}")


def minimum(size: Size, mesh: Any, batch_size: int) -> dict[str, float]:
    """The least bytes that each device sends in a step, by hand.

    Along "data", parameters are gathered in the forward pass and again in the backward pass, and
    gradients are reduced to the device that holds their part: three times the parameters. Along
    "model" the output of attention and of the network are summed in the forward pass, the
    gradients of their inputs in the backward pass, and that of attention once more where it is
    computed again: five times the activations of each layer.
    """
    head = size.features // size.heads
    attention = 2 * size.features * (size.features + size.kv_heads * head)
    layer = attention + 2 * size.features * size.hidden
    parameters = size.layers * layer + 2 * size.vocabulary * size.features
    data, model = mesh.shape["data"], mesh.shape["model"]
    activations = batch_size // data * size.length * size.features
    return {
        "data": 3 * BFLOAT16 * parameters / model * (data - 1) / data,
        "model": size.layers * 5 * 2 * BFLOAT16 * activations * (model - 1) / model,
    }


def report(options: argparse.Namespace) -> None:
    import jax

    size, model = SIZES[options.model], options.model_axis
    kinds = (jax.sharding.AxisType.Explicit,) * 2
    mesh = jax.make_mesh((options.devices // model, model), ("data", "model"), kinds)
    batch_size = options.devices // model * options.sequences
    began = time.process_time()
    compiled = lowered(size, mesh, batch_size).compile()
    text, memory = compiled.as_text(), compiled.memory_analysis()
    if options.text:
        with open(options.text, "w") as file:
            file.write(text)
    least = minimum(size, mesh, batch_size)
    print(
        f"{options.model}, {options.devices} devices ({mesh.shape['data']} data x {model} model), "
        f"{batch_size} sequences: state {memory.argument_size_in_bytes / 1e9:.2f} GB per device, "
        f"temporary {memory.temp_size_in_bytes / 1e9:.2f} GB; {time.process_time() - began:.0f} s"
    )
    total: Counter = Counter()
    sent: Counter = Counter()
    for each, times in collectives(text, mesh).items():
        total[each.axis, each.kind] += times
        sent[each.axis, each.kind] += times * each.sent
    for axis, kind in sorted(total):
        print(f"  {axis} {kind}: {total[axis, kind]}, {sent[axis, kind] / 1e9:.3f} GB")
    print(f"  least: {least['data'] / 1e9:.3f} GB data, {least['model'] / 1e9:.3f} GB model")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=SIZES, default="7B")
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--model-axis", type=int, default=1, help="devices that share each layer")
    parser.add_argument("--sequences", type=int, default=1, help="for each part of the data axis")
    parser.add_argument("--text", help="a file to write the compiled program to")
    options = parser.parse_args()
    # Before JAX is imported; code for the host is not what is looked at.
    os.environ["XLA_FLAGS"] = (
        f"--xla_force_host_platform_device_count={options.devices} "
        "--xla_backend_optimization_level=0"
    )
    os.environ["JAX_PLATFORMS"] = "cpu"
    report(options)


if __name__ == "__main__":
    sys.exit(main())
