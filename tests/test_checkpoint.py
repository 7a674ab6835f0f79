"""Checkpoints: what is saved comes back, whole and exactly, or an error says why not."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import oryxstate as ox
from oryxstate import mapping, nn
from oryxstate.checkpoint import Checkpoints, _arrays, _disk, _manifest, restore, save
from oryxstate.mapping import _match

OPTIMIZER = optax.adam(1e-2)


class Noisy(ox.Module):
    scale: jax.Array = ox.param()
    key: jax.Array = ox.state()
    count: jax.Array = ox.state()

    def call(self, x):
        key, own = jax.random.split(self.key)
        self.assign(key=key, count=self.count + 1)
        return x + self.scale * jax.random.normal(own, x.shape)


def begin(seed=0):
    """Everything that a run has."""
    order = np.random.default_rng(seed)
    model = [
        Noisy(jnp.ones(3), key, jnp.array(0)) for key in jax.random.split(jax.random.key(seed))
    ]
    return {
        "model": model,
        "optimizer": OPTIMIZER.init(ox.partition(model)[0]),
        "key": jax.random.key(seed, impl="rbg"),
        "order": order.bit_generator.state,
        "step": 0,
    }


@jax.jit
def train_step(model, optimizer_state, x):
    def loss(model):
        y = x
        after = []
        for layer in model:
            y, new = layer.call_and_update(y)
            after.append(new)
        return jnp.square(y).sum(), after

    grads, after = ox.grad(loss, has_aux=True)(model)
    updates, optimizer_state = OPTIMIZER.update(grads, optimizer_state)
    return jax.tree.map(
        lambda p, u: p if u is None else p + u, after, updates, is_leaf=lambda v: v is None
    ), optimizer_state


def advance(state):
    order = np.random.default_rng()
    order.bit_generator.state = state["order"]
    key, own = jax.random.split(state["key"])
    x = jax.random.normal(own, (3,)) + jnp.float32(order.random())
    with jax.numpy_dtype_promotion("standard"):  # for optax
        model, optimizer_state = train_step(state["model"], state["optimizer"], x)
    return {
        "model": model,
        "optimizer": optimizer_state,
        "key": key,
        "order": order.bit_generator.state,
        "step": state["step"] + 1,
    }


def abstract(tree):
    """Specs for the arrays of JAX; Python's values and NumPy's arrays stay what they are."""
    return jax.tree.map(lambda x: spec_of(x) if isinstance(x, jax.Array) else x, tree)


def spec_of(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype, weak_type=getattr(x, "weak_type", False))


def assert_equal(one, other):
    """Bit for bit, with dtypes, weak types and kinds of leaves."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for (path, a), b in zip(ox.named_leaves(one).items(), jax.tree.leaves(other), strict=True):
        assert isinstance(b, jax.Array) if isinstance(a, jax.Array) else type(a) is type(b), path
        if hasattr(a, "dtype"):
            assert a.dtype == b.dtype and a.shape == b.shape, path
            assert getattr(a, "weak_type", False) == getattr(b, "weak_type", False), path
            if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
                a, b = jax.random.key_data(a), jax.random.key_data(b)
            a, b = np.asarray(a).tobytes(), np.asarray(b).tobytes()
        assert a == b or (a != a and b != b), path


def test_a_resumed_run_equals_one_that_was_not_interrupted(tmp_path):
    straight = begin()
    for _ in range(4):
        straight = advance(straight)
    state = advance(advance(begin()))
    with Checkpoints(tmp_path) as run:
        run.save(2, state)
    resumed = Checkpoints(tmp_path).restore(abstract(begin(7)))
    assert_equal(resumed, state)
    assert_equal(advance(advance(resumed)), straight)


LEAVES = {
    "float32": jnp.arange(3.0),
    "bfloat16": jnp.ones((2, 2), jnp.bfloat16),
    "float8": jnp.ones(2, jnp.float8_e4m3fn),
    "int4": jnp.array([-8, 7], jnp.int4),
    "complex": jnp.array([1 + 2j], jnp.complex64),
    "bool": jnp.array([True, False]),
    "scalar": jnp.array(2),
    "weak": jnp.asarray(2.0) * 1,
    "empty": jnp.zeros((0, 3)),
    "key": jax.random.key(3),
    "keys": jax.random.split(jax.random.key(3, impl="rbg"), 4),
    "no keys": jax.random.split(jax.random.key(3), 4)[:0],
    "numpy": np.arange(4, dtype=np.uint64),
    "numpy scalar": np.float64(0.1),
    "large": 2**200 + 1,
    "nan": float("nan"),
    "number": 0.1,
    "imaginary": complex(0.1, float("-inf")),
    "true": True,
    "text": "a\nb \N{GREEK SMALL LETTER ALPHA}",
    "bytes": b"\x00\xff",
}


@pytest.mark.parametrize("name", LEAVES)
def test_each_kind_of_leaf_comes_back_as_it_was(name, tmp_path):
    save(tmp_path / "one", LEAVES[name])
    assert_equal(restore(tmp_path / "one", LEAVES[name]), LEAVES[name])


def test_paths_with_characters_that_mean_something_elsewhere(tmp_path):
    names = [
        "a/b",
        "a",
        "a.b",
        "..",
        "%",
        "a%2Fb",
        "x y",
        "\N{GREEK SMALL LETTER ALPHA}",
        "",
        "'",
        "[",
    ]
    tree = {name: jnp.full(2, i) for i, name in enumerate(names)} | {"n": {"a": jnp.ones(1)}}
    save(tmp_path / "one", tree)
    assert_equal(restore(tmp_path / "one", jax.eval_shape(lambda: tree)), tree)


@pytest.mark.parametrize("leaf", [object(), "abc".upper, np.array(["a"]), np.array([None])])
def test_a_leaf_that_cannot_be_saved_is_named(leaf, tmp_path):
    with pytest.raises(TypeError, match=r"'\['bad'\]' is \w+, which a checkpoint does not hold"):
        save(tmp_path / "one", {"bad": leaf})
    assert list(tmp_path.iterdir()) == []


def test_specs_and_traced_values_are_not_saved(tmp_path):
    with pytest.raises(TypeError, match="'' is the spec of an array"):
        save(tmp_path / "one", jax.ShapeDtypeStruct((2,), "float32"))
    with pytest.raises(TypeError, match=r"'' is being traced: save outside of `jax\.jit`"):
        jax.jit(lambda x: save(tmp_path / "one", x))(1.0)


def test_values_are_those_of_the_moment_of_saving(tmp_path, monkeypatch):
    devices, changed, write = jax.make_mesh((8,), ("d",)), threading.Event(), _arrays.write
    drawn = jnp.arange(1 << 16, dtype=jnp.float32)
    arrays = {
        "one device": drawn,
        "sharded": jax.device_put(drawn, NamedSharding(devices, PartitionSpec("d"))),
        "replicated": jax.device_put(drawn, NamedSharding(devices, PartitionSpec())),
    }
    expected = {name: np.array(array) for name, array in arrays.items()}
    keys = jax.random.split(jax.random.key(0), 1 << 12)
    data, number = np.array(jax.random.key_data(keys)), np.zeros(4)

    def late(*arguments):
        assert changed.wait(60)
        write(*arguments)

    monkeypatch.setattr(_arrays, "write", late)
    with Checkpoints(tmp_path) as run:
        run.save(0, {"numpy": number, "jax": arrays, "keys": keys})
        number[:] = 9
        overwrite = jax.jit(
            lambda xs, keys: (
                jax.tree.map(lambda x: x * 0 - 1, xs),
                jax.random.wrap_key_data(jax.random.key_data(keys) + 1),
            ),
            donate_argnums=(0, 1),
        )
        for name in arrays:
            arrays[name] = jax.block_until_ready(overwrite(arrays[name], jnp.copy(keys))[0])
        keys = jax.block_until_ready(overwrite(jnp.zeros(1), keys)[1])
        changed.set()
    back = run.restore({"numpy": number, "jax": arrays, "keys": keys})
    np.testing.assert_array_equal(back["numpy"], np.zeros(4))
    np.testing.assert_array_equal(jax.random.key_data(back["keys"]), data)
    for name, array in expected.items():
        np.testing.assert_array_equal(back["jax"][name], array)


# Which are kept ---------------------------------------------------------------------------------


def saved(folder, losses, **options):
    with Checkpoints(folder, **options) as run:
        for step, loss in enumerate(losses):
            run.save(step, {"w": jnp.full(2, step)}, metrics={"loss": loss})
    return run


@pytest.mark.parametrize(
    "options, kept",
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"keep_last": 1}, [4]),
        ({"keep_last": 2, "keep_best": 2, "metric": "loss"}, [0, 2, 3, 4]),
        ({"keep_best": 1, "metric": "loss"}, [2, 4]),
        ({"keep_best": 1, "metric": "loss", "mode": "max"}, [3, 4]),
    ],
)
def test_retention(options, kept, tmp_path):
    run = saved(tmp_path, [2.0, 3.0, 1.0, 5.0, float("nan")], **options)
    assert run.steps() == kept and run.latest() == 4
    assert run.metrics(4).keys() == {"loss"}


def test_the_best_of_equals_is_the_last_and_nan_is_worst(tmp_path):
    run = saved(tmp_path, [float("nan"), 1.0, 1.0, 2.0], metric="loss")
    assert run.best() == 2
    assert Checkpoints(tmp_path, metric="loss", mode="max").best() == 3
    assert Checkpoints(tmp_path, metric="accuracy").best() is None
    assert Checkpoints(tmp_path / "none", metric="loss").best() is None


def test_retention_does_not_count_a_damaged_checkpoint(tmp_path):
    saved(tmp_path, [1.0, 1.0])
    next((tmp_path / "step-1/arrays/0").glob("_METADATA")).unlink()
    with Checkpoints(tmp_path, keep_last=2) as run:
        with pytest.warns(UserWarning, match="_METADATA is missing. It is left out."):
            assert run.latest() == 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run.save(2, {"w": jnp.zeros(2)})
            assert run.steps() == [0, 2]
            run.save(1, {"w": jnp.ones(2)})  # in the place of the damaged one
            assert run.steps() == [1, 2]


@pytest.mark.parametrize("integer", [np.int32, jnp.int32])
def test_steps_that_are_arrays(tmp_path, integer):
    with Checkpoints(tmp_path, keep_last=1) as run:
        for step in range(2):
            run.save(integer(step), {"w": step})
        assert run.steps() == [1] and run.restore({"w": 0}, step=integer(1)) == {"w": 1}


def test_a_run_that_went_back_keeps_what_it_saves(tmp_path):
    with Checkpoints(tmp_path, keep_last=2) as run:
        for step in (1, 5, 6, 2):
            run.save(step, {"w": jnp.full(2, step)})
        assert run.steps() == [2, 5, 6]
        run.save(7, {"w": jnp.zeros(2)})
    assert run.steps() == [6, 7]


@pytest.mark.parametrize(
    "options, text",
    [
        ({"keep_last": 0}, "`keep_last` is at least 1"),
        ({"keep_best": 2}, "needs the name of a `metric`"),
        ({"mode": "least"}, "`mode` is 'min' or 'max'"),
    ],
)
def test_options_that_make_no_sense(options, text, tmp_path):
    with pytest.raises(ValueError, match=text):
        Checkpoints(tmp_path, **options)


def test_misuse_says_what_to_do(tmp_path):
    run = saved(tmp_path, [1.0])
    with pytest.raises(ValueError, match="no metric says which checkpoint is best"):
        run.best()
    with pytest.raises(ValueError, match="a step is an integer that is not negative, got -1"):
        run.save(-1, {})
    with pytest.raises(TypeError, match="the metric 'loss' is not a number: 'low'"):
        run.save(1, {}, metrics={"loss": "low"})
    with pytest.raises(ValueError, match=r"Give it, `metrics=\{'loss': ...\}`"):
        Checkpoints(tmp_path, metric="loss").save(1, {})
    with pytest.raises(ox.CheckpointError, match=r"a checkpoint of step 0 .* `delete\(0\)`"):
        run.save(0, {"w": 1})
    run.delete(0)
    with pytest.raises(
        ox.CheckpointError, match=r"there is no checkpoint in .* Check `latest\(\)` first"
    ):
        run.restore({})
    with pytest.raises(ox.CheckpointError, match=r"step 0 in .* was not removed"):
        run.delete(0)
    run.close()
    with pytest.raises(TypeError, match="the metric 'loss' is not a number: 'low'"):
        save(tmp_path / "above" / "x", {}, metrics={"loss": "low"})
    assert not (tmp_path / "above").exists()
    save(tmp_path / "x", {})
    with pytest.raises(ox.CheckpointError, match="exists: give another name, or remove it"):
        save(tmp_path / "x", {})


# Failures ---------------------------------------------------------------------------------------


def test_a_failure_in_the_background_is_raised_once_at_the_next_call(tmp_path, monkeypatch):
    with Checkpoints(tmp_path) as run:
        run.save(0, {"w": jnp.zeros(2)})
        run.wait()

        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(_arrays, "write", full)
        for call in (
            run.wait,
            run.latest,
            run.close,
            lambda: run.restore({}),
            run.steps,
            lambda: run.delete(0),
            lambda: run.save(2, {}),
            lambda: run.metrics(0),
        ):
            run.save(1, {"w": jnp.zeros(2)})
            with pytest.raises(ox.CheckpointError, match=r"step 1 was not saved .* No space left"):
                call()
            assert run.steps() == [0]
    assert [p.name for p in tmp_path.glob(".oryxstate-*")] == []


def test_the_end_of_a_program_waits_for_saves_and_prints_their_failures(tmp_path):
    code = f"""
import numpy as np, oryxstate as ox
ox.checkpoint.Checkpoints({str(tmp_path / "good")!r}).save(0, {{"w": np.ones(3)}})
from oryxstate.checkpoint import _arrays
run = ox.checkpoint.Checkpoints({str(tmp_path / "bad")!r})
run.save(0, {{"w": np.ones(3)}})
run.wait()
def fail(*_):
    raise OSError("the disk is gone")
_arrays.write = fail
run.save(2, {{"w": np.ones(3)}})
"""
    env = {**os.environ, "PYTHONPATH": str(Path(ox.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True
    )
    assert "step 2 was not saved" in done.stderr and "the disk is gone" in done.stderr
    assert Checkpoints(tmp_path / "good").steps() == [0]
    assert Checkpoints(tmp_path / "bad").steps() == [0]


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 2 MB, or, where none may be mounted, files of 0.5 MB at most."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(tmp_path)], capture_output=True
    )
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if mounted.returncode:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
    yield tmp_path
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    if not mounted.returncode:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_full_disk(small_disk):
    with Checkpoints(small_disk / "run") as run:
        run.save(0, {"w": jnp.ones(3)})
        run.save(1, {"w": jnp.ones(1 << 20)})  # of 4 MB
        with pytest.raises(ox.CheckpointError, match=r"step 1 was not saved.*before has changed"):
            run.wait()
        assert run.steps() == [0]
        np.testing.assert_array_equal(run.restore({"w": jnp.zeros(3)})["w"], np.ones(3))
        run.save(1, {"w": jnp.zeros(3)})  # there is room again
    assert run.steps() == [0, 1]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for bad in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ox.CheckpointError, match=r"cannot be written: .*Not a directory"):
            Checkpoints(bad).save(0, {"w": 1})
        assert Checkpoints(bad).steps() == []


def test_a_read_only_folder(tmp_path, monkeypatch):
    saved(tmp_path, [1.0])

    def denied(path, *_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    for module, name in ((_disk, "Lock"), (_disk.os, "mkdir")):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, denied)
            run = Checkpoints(tmp_path)
            with pytest.raises(ox.CheckpointError, match=r"step-1|cannot be written|Permission"):
                run.save(1, {"w": jnp.ones(2)})
                run.close()
            run.close()
    assert Checkpoints(tmp_path).steps() == [0]
    Checkpoints(tmp_path).restore({"w": jnp.zeros(2, int)})


def test_two_writers(tmp_path):
    first = saved(tmp_path, [])
    first.save(0, {"w": 1})
    first.wait()
    with pytest.raises(ox.CheckpointError, match=r"process \d+ writes into .* folder of its own"):
        Checkpoints(tmp_path).save(1, {"w": 2})
    assert Checkpoints(tmp_path).restore({"w": 0}) == {"w": 1}  # reading is free
    first.close()
    with Checkpoints(tmp_path) as second:
        second.save(1, {"w": 2})
    assert first.steps() == [0, 1]


def test_a_lock_that_could_not_be_taken_is_not_held(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(ox.CheckpointError, match=r"cannot be written: .*No space left"):
            Checkpoints(tmp_path).save(0, {"w": 1})
    with Checkpoints(tmp_path) as run:
        run.save(0, {"w": 1})


def test_of_many_threads_one_gets_the_lock(tmp_path, monkeypatch):
    lockf = _disk.fcntl.lockf

    def slow(*arguments):
        time.sleep(0.05)  # in which the others come this far, unless they are kept out
        return lockf(*arguments)

    monkeypatch.setattr(_disk.fcntl, "lockf", slow)

    def take(_):
        try:
            return _disk.Lock(tmp_path)
        except BlockingIOError:
            return None

    with ThreadPoolExecutor(4) as pool:
        (lock,) = [lock for lock in pool.map(take, range(4)) if lock is not None]
    lock.release()
    _disk.Lock(tmp_path).release()


def test_two_writers_in_two_processes(tmp_path):
    code = (
        "import fcntl, os, sys; f = open(sys.argv[1], 'a+'); fcntl.lockf(f, fcntl.LOCK_EX); "
        "f.write(str(os.getpid())); f.flush(); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(ox.CheckpointError, match=f"process {other.pid} writes into"):
            Checkpoints(tmp_path).save(0, {"w": 1})
        other.kill()  # and the system takes its lock back
    with Checkpoints(tmp_path) as run:
        run.save(0, {"w": 1})


# Files that are not as they were -----------------------------------------------------------------


def two(tmp_path):
    run = saved(tmp_path, [1.0, 1.0])
    return run, tmp_path / "step-1"


def files_of(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file())


def test_truncated_files_are_found_before_anything_is_read(tmp_path):
    run, folder = two(tmp_path)
    for path in files_of(folder):
        whole = path.read_bytes()
        for cut in {0, len(whole) // 2, len(whole) - 1}:
            path.write_bytes(whole[:cut])
            with pytest.raises(ox.CheckpointError, match=r"bytes instead of|not the one that was"):
                run.restore({"w": jnp.zeros(2, int)}, step=1)
            with pytest.warns(UserWarning, match="left out"):
                assert run.latest() == 0
        path.unlink()
        with pytest.raises(ox.CheckpointError, match=f"{path.name}"):
            run.restore({"w": jnp.zeros(2, int)}, step=1)
        path.write_bytes(whole)
    run.restore({"w": jnp.zeros(2, int)}, step=1)


def test_a_flipped_bit_is_found_in_every_file(tmp_path):
    run, folder = two(tmp_path)
    draw = np.random.default_rng(0)
    for path in files_of(folder):
        whole = path.read_bytes()
        for _ in range(4):
            at = int(draw.integers(8 * len(whole)))
            flipped = bytearray(whole)
            flipped[at // 8] ^= 1 << at % 8
            path.write_bytes(flipped)
            with pytest.raises(ox.CheckpointError, match="step-1' cannot be read: its"):
                run.restore({"w": jnp.zeros(2, int)}, step=1)
        path.write_bytes(whole)
    assert_equal(run.restore({"w": jnp.zeros(2, int)}, step=0), {"w": jnp.zeros(2, int)})


def rewrite(folder, change):
    """Change a manifest, and commit it again: a file from elsewhere, made well."""
    data = json.loads((folder / "manifest.json").read_text())
    change(data)
    text = json.dumps(data).encode()
    (folder / "manifest.json").write_bytes(text)
    (folder / "COMMITTED").write_bytes(_manifest.seal_of(text))


def test_foreign_files(tmp_path):
    run, folder = two(tmp_path)
    rewrite(folder, lambda data: data.update(format="other"))
    with pytest.raises(ox.CheckpointError, match="is not that of an oryxstate checkpoint"):
        run.restore({"w": 0}, step=1)
    (folder / "manifest.json").write_bytes(b"\x80\x04")
    (folder / "COMMITTED").write_bytes(_manifest.seal_of(b"\x80\x04"))
    with pytest.raises(ox.CheckpointError, match="cannot be read"):
        run.restore({"w": 0}, step=1)
    (tmp_path / "step-9").mkdir()
    (tmp_path / "step-9/checkpoint.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(ox.CheckpointError, match=r"no .*manifest.json, so it is not a checkpoint"):
        run.restore({"w": 0}, step=9)
    with pytest.raises(ox.CheckpointError, match="so it is not a checkpoint"):
        restore(tmp_path / "step-9/checkpoint.pkl", {"w": 0})


def test_a_later_format_is_refused_not_skipped(tmp_path):
    run, folder = two(tmp_path)
    rewrite(folder, lambda d: d.update(version=3, written_by={"oryxstate": "7.0"}))
    for call in (run.latest, lambda: run.restore({"w": 0}), lambda: run.restore({"w": 0}, step=1)):
        with pytest.raises(ox.CheckpointError, match=r"version 3 .* oryxstate 7.0; .* up to 2"):
            call()
    run.restore({"w": jnp.zeros(2, int)}, step=0)


@pytest.mark.parametrize("dtype", ["object", "python.Path", "O", "U3", "no", "python.list"])
def test_a_file_says_only_what_a_leaf_can_be(dtype, tmp_path):
    run, folder = two(tmp_path)
    rewrite(
        folder, lambda d: d["leaves"].update({"['w']": {"dtype": dtype, "shape": [], "value": "1"}})
    )
    with pytest.raises(ox.CheckpointError, match=r"its manifest.json is not complete"):
        run.restore({"w": 0}, step=1)


def test_what_killed_writers_left_is_removed_at_the_next_save(tmp_path):
    run = saved(tmp_path, [1.0])
    left = tmp_path / ".oryxstate-0123456789ab"
    (left / "arrays").mkdir(parents=True)
    assert run.steps() == [0] and left.exists()
    with Checkpoints(tmp_path) as run:
        run.save(1, {"w": 1})
    assert not left.exists() and run.steps() == [0, 1]


# Into other models ------------------------------------------------------------------------------


def dense(features, key=0):
    return nn.Dense.of(features).init(jax.random.key(key), jnp.ones(3))


def test_a_mismatch_lists_every_path_and_changes_nothing(tmp_path):
    save(
        tmp_path / "one",
        {
            "old": jnp.ones(2),
            "same": jnp.ones(3),
            "kind": jnp.ones(2),
            "shape": jnp.ones((2, 3)),
            "text": "a",
        },
    )
    into = {
        "new": jnp.zeros(2),
        "same": jnp.zeros(3),
        "kind": jnp.zeros(2, int),
        "shape": jnp.zeros((3, 2)),
        "text": 1,
    }
    with pytest.raises(ox.MismatchError) as caught:
        restore(tmp_path / "one", into)
    assert (
        str(caught.value)
        == f"""'{tmp_path / "one"}' does not fit the model; nothing was loaded.
  missing: '['new']', float32[2]
  left over: '['old']', float32[2]
  does not fit: '['kind']', saved float32[2], wanted int32[2], and one is not cast to the other
  does not fit: '['shape']', saved float32[2,3], wanted float32[3,2]
  does not fit: '['text']', saved python.str, wanted python.int, and one is not cast to the other
Give a `mapping` of paths (`oryxstate.mapping`), or `select` what to load and leave the rest."""
    )
    assert float(into["same"].sum()) == 0


def test_a_missing_path_that_was_renamed_is_suggested(tmp_path):
    save(tmp_path / "one", {"encoder": jnp.ones(2)})
    with pytest.raises(ox.MismatchError, match=r"float32\[2\] \(is it '\['encoder'\]'\?\)"):
        restore(tmp_path / "one", {"encoder_1": jnp.ones(2)})


def test_suggestions_for_a_large_model_are_bounded(tmp_path, monkeypatch):
    compared = []
    monkeypatch.setattr(
        _match.difflib, "get_close_matches", lambda path, others, *_: compared.extend(others) or []
    )
    save(tmp_path / "one", {f"old {i}": i for i in range(200)})
    with pytest.raises(ox.MismatchError) as caught:
        restore(tmp_path / "one", {f"new {i}": i for i in range(200)})
    assert len(compared) == _match.HINTED and str(caught.value).count("missing: ") == 200


def test_other_dtypes(tmp_path):
    tree = {"f": jnp.array([0.1, 3.0]), "i": jnp.array([1, 100]), "n": 3, "z": jnp.array(4)}
    save(tmp_path / "one", tree)
    into = {
        "f": jax.ShapeDtypeStruct((2,), "bfloat16"),
        "i": np.zeros(2, np.int64),
        "n": jax.ShapeDtypeStruct((), "int8"),
        "z": 0,
    }
    reports = []
    back = restore(tmp_path / "one", into, report=reports.append)
    assert_equal(
        back,
        {
            "f": tree["f"].astype("bfloat16"),
            "i": np.array([1, 100]),
            "n": jnp.array(3, "int8"),
            "z": 4,
        },
    )
    assert reports[0].cast["['f']"] == ("float32", "bfloat16")
    assert "(float32 to bfloat16)" in str(reports[0])


@pytest.mark.parametrize(
    "value, dtype",
    [
        (jnp.array([300]), "int8"),
        (jnp.array([-1]), "uint8"),
        (jnp.array([1e5]), "float16"),
        (np.array([2**63], np.uint64), "int32"),
        (2**200, "int32"),
        (jnp.array([-8, 7], jnp.int4), "uint4"),
    ],
)
def test_numbers_that_the_other_dtype_cannot_hold(value, dtype, tmp_path):
    save(tmp_path / "one", {"x": value})
    into = {"x": jax.ShapeDtypeStruct(np.shape(value), dtype)}
    with pytest.raises(ox.MismatchError, match=f"'.'x'.' holds numbers that {dtype} cannot hold"):
        restore(tmp_path / "one", into)


def test_integers_that_just_fit_another_dtype(tmp_path):
    tree = {"a": jnp.array([-128, 127]), "b": jnp.array([-8, 7], jnp.int4), "c": jnp.zeros(0, int)}
    save(tmp_path / "one", tree)
    into = {name: jax.ShapeDtypeStruct(x.shape, "int8") for name, x in tree.items()}
    assert_equal(restore(tmp_path / "one", into), jax.tree.map(lambda x: x.astype("int8"), tree))


def test_a_rule_of_layouts_refuses_a_python_value(tmp_path):
    save(tmp_path / "one", {"step": 3})
    with pytest.raises(ValueError, match=r"'\['step'\]' is python.int, not an array"):
        restore(tmp_path / "one", {"step": 0}, mapping=[mapping.Transpose("**")])


def test_64_bits_that_jax_does_not_hold(tmp_path):
    save(tmp_path / "one", {"x": np.ones(1)})
    with pytest.raises(ox.MismatchError, match="JAX holds only with `jax_enable_x64`"):
        restore(tmp_path / "one", {"x": jax.ShapeDtypeStruct((1,), "float64")})
    assert restore(tmp_path / "one", {"x": np.zeros(1)})["x"].dtype == np.float64


def test_other_shardings(tmp_path):
    devices = jax.make_mesh((8,), ("d",))
    rows = NamedSharding(devices, PartitionSpec("d"))
    columns = NamedSharding(devices, PartitionSpec(None, "d"))
    tree = {
        "w": jax.device_put(jnp.arange(128.0).reshape(16, 8), rows),
        "all": jax.device_put(jnp.ones(4), NamedSharding(devices, PartitionSpec())),
        "key": jax.device_put(jax.random.split(jax.random.key(0), 8), rows),
    }
    save(tmp_path / "one", tree)
    into = {
        "w": jax.ShapeDtypeStruct((16, 8), "float32", sharding=columns),
        "all": jax.ShapeDtypeStruct((4,), "float32"),
        "key": jax.ShapeDtypeStruct((8,), tree["key"].dtype, sharding=rows),
    }
    back = restore(tmp_path / "one", into)
    assert back["w"].sharding == columns and back["key"].sharding == rows
    assert len(back["all"].sharding.device_set) == 1
    assert_equal(back, tree)
    assert restore(tmp_path / "one", tree)["w"].sharding == rows


def test_a_selection_keeps_the_rest_and_reports(tmp_path):
    old = {"body": dense(4), "head": dense(2)}
    save(tmp_path / "one", old)
    new = {"body": dense(4, key=1), "head": dense(5, key=1)}
    reports = []
    back = restore(tmp_path / "one", new, select=lambda p: "body" in p, report=reports.append)
    assert_equal(back, {"body": old["body"], "head": new["head"]})
    (report,) = reports
    assert report.loaded == ("['body'].kernel", "['body'].bias")
    assert report.kept == report.unused == ("['head'].kernel", "['head'].bias")
    assert str(report).startswith("loaded 2 of 4 leaves\n  kept: ['head'].kernel")

    class Selection:
        def paths(self, model):
            return [path for path in ox.named_leaves(model) if path.endswith("bias")][:1]

    back = restore(tmp_path / "one", new, select=Selection())
    assert_equal(back, {**new, "body": new["body"].replace(bias=old["body"].bias)})
    with pytest.raises(ValueError, match="the selection matches no leaf"):
        restore(tmp_path / "one", new, select=lambda path: False)


def test_what_is_selected_and_left_over_is_a_mismatch(tmp_path):
    save(tmp_path / "one", {"a": 1, "b": 2})
    with pytest.raises(ox.MismatchError, match=r"left over: '\['b'\]'"):
        restore(tmp_path / "one", {"a": 0}, select=lambda path: True)


def noisy(i):
    return Noisy(jnp.full(2, i, "float32"), jax.random.key(i), jnp.array(i, "int32"))


def test_named_layers_become_one_repeat_and_back(tmp_path):
    """Twelve named layers, with state and keys, in the path mapping that Orbax lacks."""
    layers = {f"block_{i}": noisy(i) for i in range(12)}
    save(tmp_path / "named", layers)
    rules = [mapping.Stack("['block_#'].**", "layers.**")]
    stack = jax.vmap(lambda k: Noisy(jnp.ones(2), k, jnp.array(0, "int32")))
    repeat = nn.Repeat(jax.eval_shape(stack, jax.random.split(jax.random.key(0), 12)), 12)
    back = restore(tmp_path / "named", repeat, mapping=rules)
    for i in range(12):
        assert_equal(jax.tree.map(lambda x, i=i: x[i], back.layers), layers[f"block_{i}"])
    save(tmp_path / "stacked", back)
    again = restore(
        tmp_path / "stacked", jax.eval_shape(lambda: layers), mapping=mapping.inverse(rules)
    )
    assert_equal(again, layers)


def test_arrays_of_many_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(_arrays, "PART", 100)
    tree = {str(i): jnp.full((9 * i,), i) for i in range(12)}
    save(tmp_path / "one", tree)
    assert len(list((tmp_path / "one/arrays").iterdir())) > 4
    assert_equal(restore(tmp_path / "one", tree), tree)
    rules = [mapping.Merge(("['1']", "['11']"), "both")]
    back = restore(
        tmp_path / "one",
        {"x": jax.ShapeDtypeStruct((108,), "int32")},
        mapping=[*rules, mapping.Rename("both", "['x']")],
        select=lambda p: p == "['x']",
    )
    np.testing.assert_array_equal(back["x"], [1] * 9 + [11] * 99)


def test_a_checkpoint_says_what_wrote_it(tmp_path):
    save(tmp_path / "one", {"step": 1})
    written = json.loads((tmp_path / "one/manifest.json").read_text())["written_by"]
    assert (written["oryxstate"], written["jax"]) == (ox.__version__, jax.__version__)


# The format is frozen ----------------------------------------------------------------------------

FOLDERS = sorted((Path(__file__).parent / "checkpoints").iterdir())


def what_was_written():
    model = [Noisy(jnp.arange(3.0), jax.random.key(1), jnp.array(2)), dense(2)]
    return {
        "model": model,
        "half": jnp.ones(2, jnp.bfloat16),
        "key": jax.random.key(3, impl="rbg"),
        "step": 7,
        "loss": 0.1,
        "order": np.arange(3),
        "empty": jnp.zeros((0, 2)),
        "name": "a",
    }


def test_there_is_a_file_of_each_version():
    versions = [json.loads((path / "manifest.json").read_text())["version"] for path in FOLDERS]
    assert [f"v{version}" for version in versions] == [path.name for path in FOLDERS]
    assert versions == [_manifest.VERSION, _manifest.WITH_PIECES]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_file_of_each_released_version_loads(folder):
    expected = what_was_written()
    back = restore(folder, abstract(expected))
    kernel = back["model"][1].kernel
    assert kernel.shape == (3, 2) and float(abs(kernel).sum()) > 0  # drawn, by whatever JAX
    back["model"][1] = back["model"][1].replace(kernel=expected["model"][1].kernel)
    assert_equal(back, expected)
