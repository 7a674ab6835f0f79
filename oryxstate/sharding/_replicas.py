"""The check that the copies of an array on several devices are equal."""

from __future__ import annotations

import zlib
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from oryxstate import _tree


def check_replicas(tree: Any) -> None:
    """Check that all devices that hold the same part of an array hold the same numbers.

    JAX takes that for granted, and a program that breaks it (a `shard_map` without `check_vma`,
    processes that load different files, different seeds) goes on with different states. This is a
    check for debugging: it copies what each device holds to the host. With several processes all
    of them have to call it.

    Args:
        tree: a model, the state of an optimizer, or any pytree with arrays.

    Raises:
        ValueError: naming the path of each array whose copies differ, and the devices.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> from oryxstate import nn, sharding
        >>> mesh = jax.make_mesh((1,), ("data",))
        >>> start = ox.init(nn.Dense.of(8))
        >>> model = sharding.make(start, mesh, sharding.FSDP)(jax.random.key(0), jnp.ones(4))
        >>> sharding.check_replicas(model)
    """
    leaves = {k: _data(x) for k, x in _tree.named_leaves(tree).items() if isinstance(x, jax.Array)}
    sums = _gathered(leaves)
    wrong = []
    for (path, x), of_devices in zip(leaves.items(), sums, strict=True):
        held: dict[str, dict[int, list[int]]] = {}
        for device, index in x.sharding.devices_indices_map(x.shape).items():
            if device.id in of_devices:
                copies = held.setdefault(repr(index), {})
                copies.setdefault(of_devices[device.id], []).append(device.id)
        differ = next((c for c in held.values() if len(c) > 1), None)
        if differ is not None:
            wrong.append(f"`{path}` on devices {' and '.join(map(str, differ.values()))}")
    if wrong:
        raise ValueError(
            f"the copies of {len(wrong)} arrays differ between devices: {'; '.join(wrong)}. All "
            "devices must write the same: reduce the value over them, `jax.lax.pmean(value, axis)` "
            "in `jax.shard_map`, and start all processes from the same key and checkpoint."
        )


def _data(x: jax.Array) -> jax.Array:
    return jax.random.key_data(x) if jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def _gathered(leaves: dict[str, jax.Array]) -> list[dict[int, int]]:
    """Return a checksum of what each device holds, by its id, for each array."""
    own = [
        {s.device.id: zlib.crc32(np.asarray(s.data).tobytes()) for s in x.addressable_shards}
        for x in leaves.values()
    ]
    if jax.process_count() == 1 or not own:
        return own
    local = [device.id for device in jax.local_devices()]
    table = [[(i, each.get(i, 0), int(i in each)) for i in local] for each in own]
    everywhere = multihost_utils.process_allgather(np.asarray(table, np.uint32))
    rows = everywhere.reshape(-1, *np.shape(table))  # [processes, arrays, devices, 3]
    return [
        {int(i): int(crc) for i, crc, there in rows[:, k].reshape(-1, 3) if there}
        for k in range(len(own))
    ]
