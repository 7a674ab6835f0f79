"""Checkpoints of two processes; test_checkpoint_processes.py launches this program.

`several_processes.py FOLDER`: FOLDER holds `alone`, a checkpoint of one process. Each case runs in
both processes, one after the other, and what differs from what is expected is an exception.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import oryxstate as ox
from oryxstate.checkpoint import Checkpoints, _arrays, _call, _disk


def values():
    """What is saved, by path, as NumPy arrays and Python values."""
    return {
        "rows": np.arange(32.0, dtype=np.float32).reshape(4, 8),
        "columns": np.arange(32, dtype=np.int32).reshape(4, 8),
        "half": np.arange(4).astype(jnp.bfloat16),
        "all": np.ones(3, np.float32),
        "own": np.arange(3, dtype=np.float32),
        "numpy": np.arange(5),
        "step": 7,
    }


PLACES = {
    "rows": PartitionSpec("d"),
    "columns": PartitionSpec(None, "d"),
    "half": PartitionSpec("d"),
    "all": PartitionSpec(),
}


def place(value, spec, mesh):
    sharding = NamedSharding(mesh, spec)
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def tree(mesh):
    """The same, with arrays over both processes, and on each alone."""
    found = values()
    placed = {name: place(found[name], spec, mesh) for name, spec in PLACES.items()}
    keys = jax.random.key_data(jax.random.split(jax.random.key(0), 4))
    placed["keys"] = jax.random.wrap_key_data(place(np.asarray(keys), PartitionSpec("d"), mesh))
    return {**found, **placed, "own": jnp.asarray(found["own"]), "key": jax.random.key(1)}


def local(array):
    """The blocks of an array in this process, of random keys of their data."""
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    return {str(s.index): np.asarray(s.data).tobytes() for s in array.addressable_shards}


def assert_same(one, other):
    for (path, a), b in zip(ox.named_leaves(one).items(), jax.tree.leaves(other), strict=True):
        if isinstance(a, jax.Array):
            assert a.sharding.is_equivalent_to(b.sharding, a.ndim), (path, a.sharding, b.sharding)
            assert a.dtype == b.dtype and local(a) == local(b), path
        else:
            assert np.array_equal(a, b), path


def fails(function, *texts):
    """Both processes raise, and say the same."""
    try:
        function()
    except ox.CheckpointError as error:
        assert all(text in str(error) for text in texts), str(error)
    else:
        raise AssertionError(f"nothing was raised, but {texts} was expected")


def comes_back_as_it_was(folder, mesh, me):
    """Donated and changed after the save; then in the same and in other shardings."""
    saved = tree(mesh)
    with Checkpoints(folder / "run", keep_last=2) as run:
        for step in range(3):
            run.save(step, saved)
        overwrite = jax.jit(lambda x: x * 0, donate_argnums=0)
        overwritten = overwrite(saved["rows"])
        assert run.steps() == [1, 2] and run.latest() == 2
        assert_same(run.restore(tree(mesh)), tree(mesh))
        other = {**tree(mesh), "rows": place(values()["rows"], PartitionSpec(None, "d"), mesh)}
        assert_same(run.restore(jax.tree.map(spec_of, other), step=1), other)
        try:
            run.restore({**other, "rows": place(values()["all"], PartitionSpec(), mesh)})
            raise AssertionError("another shape was restored")
        except ox.MismatchError as error:
            assert "'['rows']', saved float32[4,8], wanted float32[3]" in str(error)
        run.delete(1)
        assert run.steps() == [2]
    del overwritten


def spec_of(leaf):
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def that_of_one_process_is_read_by_two(folder, mesh, me):
    assert_same(ox.checkpoint.restore(folder / "alone", tree(mesh)), tree(mesh))
    ox.checkpoint.save(folder / "together", tree(mesh))
    fails(lambda: ox.checkpoint.save(folder / "together", {}), "exists: give another name")


def a_process_reads_only_its_own_blocks(folder, mesh, me):
    read, asked = _arrays.read_pieces, []
    _arrays.read_pieces = lambda *given: asked.extend(given[1]) or read(*given)
    ox.checkpoint.restore(folder / "together", tree(mesh))
    _arrays.read_pieces = read
    assert sorted(start for path, start in asked if path == "['rows']") == [(2 * me, 0)]


def what_differs_between_processes_is_refused(folder, mesh, me):
    with Checkpoints(folder / "differs") as run:
        for wrong in ({"n": me}, {"n": np.full(2, me)}, {"n": jnp.full(2, me)}):
            run.save(0, wrong)
            fails(run.wait, "step 0 was not saved", "'['n']' differs between process 0 and process")
        run.save(0, {"m": 1} if me else {"n": 1})
        fails(run.wait, "different trees: process 1 has '['m']', and process 0 does not")
        assert run.steps() == []


def an_error_in_one_process_is_raised_in_both(folder, mesh, me):
    write, x = _arrays.write_pieces, tree(mesh)["rows"]

    def full(*_):
        raise OSError(28, "No space left on device")

    with Checkpoints(folder / "fails") as run:
        run.save(0, {"x": x})
        if me == 1:
            run.wait()
            _arrays.write_pieces = full
        run.save(1, {"x": x})
        fails(run.wait, "step 1 was not saved", "OSError: [Errno 28] No space left")
        _arrays.write_pieces = write
        # Before anything is written, and in the process that decides.
        for bad in (0, 1):
            leaf = object() if me == bad else 1
            try:
                run.save(1, {"x": leaf})
            except TypeError as error:
                assert me == bad and "which a checkpoint does not hold" in str(error)
            if me != bad:
                fails(run.wait, f"process {bad}: TypeError: '['x']' is object")
        assert run.steps() == [0]
        assert [p.name for p in (folder / "fails").glob(".oryxstate-*")] == []


def a_folder_that_one_process_does_not_see(folder, mesh, me):
    _disk.SEEN = 0.2
    own = folder / f"disk-of-{me}"  # under one name, as on two machines
    own.mkdir()
    os.chdir(own)
    with Checkpoints("run") as run:
        run.save(0, {"x": 1})
        fails(run.wait, "FileNotFoundError: ", "on a file system that all processes share")
        if me == 0:
            assert os.listdir(own / "run") == [".lock"]
    Path("run").mkdir(exist_ok=True)
    if me == 0:
        (folder / "together").rename("run/step-3")
    fails(Checkpoints("run").latest, "could not be listed", "step-3", "not there for this process")


def calls_that_differ_are_refused(folder, mesh, me):
    with Checkpoints(folder / "calls") as run:
        run.save(me, {"x": 1})
        fails(run.wait, "process 0 called save(0), but process 1 called save(1)")


def a_straggler_is_waited_for_and_named(folder, mesh, me):
    _call.ASKING, said = 0.2, []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("oryxstate.checkpoint").addHandler(handler)
    with Checkpoints(folder / "late") as run:
        time.sleep(0.9 * me)
        run.save(0, {"x": 1})
        assert run.steps() == [0]
    if me == 0:
        assert said and said[0].startswith("process 1 has not come to save(0) for 0 s"), said


def a_process_that_does_not_come_is_an_error(folder, mesh, me):
    _call.PATIENCE = 0.5
    run = Checkpoints(folder / "absent")
    if me == 0:
        run.save(0, {"x": 1})
        fails(
            run.wait, "process 1 has not come to save(0)", "makes the same calls in the same order"
        )


def main():
    folder = Path(sys.argv[1])
    jax.distributed.initialize()
    mesh, me = jax.make_mesh((2,), ("d",)), jax.process_index()
    for case in (
        comes_back_as_it_was,
        that_of_one_process_is_read_by_two,
        a_process_reads_only_its_own_blocks,
        what_differs_between_processes_is_refused,
        an_error_in_one_process_is_raised_in_both,
        calls_that_differ_are_refused,
        a_straggler_is_waited_for_and_named,
        a_folder_that_one_process_does_not_see,
        a_process_that_does_not_come_is_an_error,
    ):
        case(folder, mesh, me)
        print(case.__name__, flush=True)


if __name__ == "__main__":
    main()
