"""Uses of a live module that would lose state are refused (S4, S5)."""

import threading

import jax
import jax.numpy as jnp
import pytest
from hosts import Host, both, healthy
from threaded import Acc, made

import oryxstate as ox

H = jnp.float32(0.3)


def refused(step, *words):
    for run in both(ox.call_and_update):
        with pytest.raises(ox.EffectError) as error:
            run(Host(made(Acc), step), H)
        assert all(word in str(error.value) for word in words), error.value
    healthy()


def test_state_given_by_replace_is_not_ignored():
    refused(
        lambda m, h: m.replace(total=jnp.float32(2))(h),
        "`total`",
        "'inner'",
        "assign",
        "ox.snapshot",
    )
    refused(
        lambda m, h: jax.tree.map(lambda x: x, m).replace(total=H, count=jnp.int32(2))(h),
        "`total`, `count`",
    )


def test_params_given_by_replace_are_used():
    for run in both(ox.call_and_update):
        y, new = run(Host(made(Acc), lambda m, h: m.replace(scale=jnp.float32(2))(h)), H)
        want, inner = ox.call_and_update(made(Acc).replace(scale=jnp.float32(2)), H)
        assert jnp.allclose(y, want) and new.inner.total == inner.total


def test_state_given_to_a_snapshot_is_used():
    def step(m, h):
        return ox.call(ox.snapshot(m).replace(total=jnp.float32(2)), h)

    for run in both(ox.call_and_update):
        y, new = run(Host(made(Acc), step), H)
        assert jnp.allclose(y, made(Acc).replace(total=jnp.float32(2))(H))
        assert new.inner.total == made(Acc).total


def keep_a_closure(kept):
    """A jitted function that closes over a value, and is traced in the call that it is from."""

    def step(m, h):
        value = jax.tree.map(lambda leaf: leaf, m)
        kept.append(jax.jit(lambda h: value(h)))
        return kept[-1](h)

    return step


def test_a_jitted_closure_over_a_value_acts_on_its_own_root_call_only():
    kept = []
    ox.call(Host(made(Acc), keep_a_closure(kept)), H)
    with pytest.raises(ox.EffectError, match="belongs to a root call that has ended"):
        ox.call(Host(made(Acc), lambda m, h: kept[0](h)), H)
    healthy()


def test_a_jitted_function_of_a_module_is_traced_once():
    traces = []

    @jax.jit
    def outer(m, h):
        traces.append("once")
        return jax.jit(lambda h: m(h))(h)  # closes over what is an argument here

    for _ in range(2):
        new = ox.update(Host(made(Acc), lambda m, h: outer(m, h)), H)
        assert new.inner.count == made(Acc).count + 1
    assert len(traces) == 1


def test_another_thread_is_named():
    def step(m, h):
        def work():
            with pytest.raises(ox.EffectError, match="another thread, or on the host"):
                m(h)
            done.append(True)

        done = []
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert done
        return h

    ox.call(Host(made(Acc), step), H)


def test_a_snapshot_of_an_argument_is_as_it_is_now():
    def member(m, h):
        m(h)
        return ox.call(ox.snapshot(m), h)

    want = made(Acc).update(H)(H)
    for run in both(ox.call):
        assert jnp.allclose(run(Host(made(Acc), lambda m, h: jax.jit(member)(m, h)), H), want)
        assert jnp.allclose(run(Host(made(Acc), jax.checkpoint(member)), H), want)
