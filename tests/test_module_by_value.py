"""A class that arrives by value is as good as one that was imported (S1).

So cloudpickle sends the classes of a script or a notebook, for Ray, Dask, joblib and submitit.
"""

import os
import subprocess
import sys

import pytest

SENDER = """
import abc, functools, sys, cloudpickle, jax, jax.numpy as jnp, oryxstate as ox
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from oryxstate import nn

class Gain(ox.Module):
    w: jax.Array
    n: jax.Array = ox.state(default_factory=lambda: jnp.int32(0))
    scale: float = ox.static(default=1.0)
    function: Callable = ox.static(default=functools.partial(jax.nn.leaky_relu, negative_slope=0.5))
    def call(self, x):
        self.assign(n=self.n + 1)
        return self.function(self.w * x) * self.scale
    @functools.cached_property
    def double(self):
        return self.n * 2

class Doubled(Gain):
    def call_and_update(self, x):
        y, new = super().call_and_update(x)
        return 2 * y, new

class Mixin:
    def __call__(self, x):
        self.assign(n=self.n + 1)
        return self.w * x

class Mixed(Mixin, ox.Module, kw_only=True):
    w: jax.Array
    n: jax.Array = ox.state(default=None)

class Own(ox.Module):
    w: jax.Array
    n: jax.Array = ox.state(default_factory=lambda: jnp.int32(0))
    def __init__(self, w):
        self.w = w
    def __getattr__(self, name):
        return f"no {name}" if name == "field" else super().__getattribute__(name)
    def call(self, x):
        self.assign(n=self.n + 1)
        return self.w * x

class Abstract(ox.Module):
    @property
    @abc.abstractmethod
    def w(self): ...
    @abc.abstractmethod
    def call(self, x): ...

T = TypeVar("T")
class Implemented(Abstract, Generic[T]):
    w: jax.Array
    n: jax.Array = ox.state(default_factory=lambda: jnp.int32(0))
    def call(self, x):
        self.assign(n=self.n + 1)
        return self.w * x

class Scale(nn.Layer):
    w: jax.Array
    n: jax.Array = ox.state()
    @classmethod
    def initialize(cls, init_key, in_spec, w=2.0):
        return nn.LayerParams(params={"w": jnp.float32(w)}, state={"n": jnp.int32(0)})
    def call(self, x, *, training=False):
        self.assign(n=self.n + 1)
        return self.w * x

class Net(ox.Module):
    inner: Any
    def call(self, x):
        for part in jax.tree.leaves(self.inner, is_leaf=lambda m: isinstance(m, ox.Module)):
            x = part(x)
        return x

two, zero = jnp.float32(2), jnp.int32(0)
sent = {
    "Gain": Gain,
    "gain": Gain(two),
    "doubled": Doubled(two),
    "mixed": Mixed(w=two, n=zero),
    "own": Own(two),
    "implemented": Implemented[int](two),
    "layer": ox.init(Scale.of(2.0))(jax.random.key(0), two),
    "net": Net([Gain(two), {"k": Doubled(two)}, Net((Mixed(w=two, n=zero),))]),
}
for name, value in sent.items():
    with open(f"{sys.argv[1]}/{name}", "wb") as file:
        cloudpickle.dump(value, file)
"""

RECEIVER = """
import sys, pickle, cloudpickle, jax, jax.numpy as jnp, oryxstate as ox
def received(name):
    with open(f"{sys.argv[1]}/{name}", "rb") as file:
        return pickle.load(file)
"""

# Of each model: its leaves, what it makes of 3.0, and its count, eagerly and jitted, twice.
MODELS = """
def check(m, leaves, y):
    assert len(jax.tree.leaves(m)) == len(ox.named_leaves(m)) == leaves, ox.named_leaves(m)
    for step in (ox.call_and_update, jax.jit(ox.call_and_update)):
        new = m
        for n in (1, 2):
            out, new = step(new, 3.0)
            counts = [int(v) for k, v in ox.named_leaves(new).items() if k.endswith("n")]
            assert (float(out), counts) == (y, [n] * (leaves // 2)), (out, counts)
    again = pickle.loads(cloudpickle.dumps(new))
    assert jax.tree.structure(again) == jax.tree.structure(m)
    assert type(m.replace()) is type(m) and f"{type(m).__name__}(" in repr(m)

for name in ("gain", "mixed", "own", "implemented", "layer"):
    check(received(name), 2, 6.0)
check(received("doubled"), 2, 12.0)
check(received("net"), 6, 48.0)
assert received("own").field == "no field"
"""

CLASS = """
cls = received("Gain")
gain = cls(jnp.float32(2))
assert (gain.scale, gain.n, len(jax.tree.leaves(gain))) == (1.0, 0, 2)
assert gain.double == 0 and gain.update(1.0).double == 2
for bad in (lambda: cls(), lambda: cls(1.0, wrong=2), lambda: cls(object())):
    try:
        bad()
    except TypeError:
        continue
    raise AssertionError

class Sub(cls):
    more: int = ox.static(default=2)
    def call(self, x):
        return self.more * super().call(x)

y, new = jax.jit(ox.call_and_update)(Sub(jnp.float32(2)), 3.0)
assert (float(y), int(new.n)) == (12.0, 1)
made = type(received("own"))(jnp.float32(4))  # its `__init__` leaves `n` to the default
assert made.n == 0 and made.update(1.0).n == 1
"""


def run(code, folder):
    path = f"import sys; sys.path[:0] = {[os.getcwd(), *filter(None, sys.path)]}\n"
    command = [sys.executable, "-c", path + code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a process wrote whose classes no other one knows."""
    folder = tmp_path_factory.mktemp("sent")
    run(SENDER, folder)
    return folder


@pytest.mark.parametrize("check", [MODELS, CLASS], ids=["models", "classes"])
def test_classes_by_value_work_in_another_process(folder, check):
    run(RECEIVER + check, folder)
