"""Transfer: a backbone that is trained first, then frozen in evaluation under a new head."""

from __future__ import annotations

import functools

import equinox as eqx
import jax
import numpy as np
import optax

import oryxstate as ox
from oryxstate import nn

KEY = jax.random.key(0)
BACKBONE = nn.Dense.of(12) >> nn.BatchNorm.of(momentum=0.8) >> jax.nn.relu >> nn.Dropout.of(0.2)
HEAD = nn.Dropout.of(0.1) >> nn.Dense.of(2)


class Classifier(ox.Module):
    backbone: ox.Module
    head: ox.Module

    def call(self, x):
        return self.head(self.backbone(x))


class Transferred(Classifier):
    """The backbone is in evaluation whatever the rest does."""

    def call(self, x):
        return self.head(self.backbone(x, training=False))


def loss(model, xs, labels, key):
    logits, model = ox.batch_call_and_update(model, xs, training=True, rng=key)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), model


def inputs(seed):
    return jax.random.normal(jax.random.key(seed), (64, 4)) + 0.5


def first_task():
    xs = inputs(1)
    return xs, (xs[:, 0] * xs[:, 1] > 0.3).astype(int)


def second_task():
    xs = inputs(2)
    return xs, (xs[:, 2] > 0.5).astype(int)


@functools.cache
def pretrained():
    xs, labels = first_task()
    key = jax.random.split(KEY)
    backbone = ox.init(BACKBONE)(key[0], xs[0])
    features = backbone.spec(xs[0])
    model = Classifier(backbone, ox.init(HEAD)(key[1], features))
    optimizer = optax.adam(0.02)

    @jax.jit
    def step(model, state, key):
        (value, model), gradient = ox.value_and_grad(loss, has_aux=True)(model, xs, labels, key)
        updates, state = optimizer.update(gradient, state)
        return eqx.apply_updates(model, updates), state, value

    state, values = optimizer.init(ox.partition(model)[0]), []
    for key in jax.random.split(KEY, 30):
        model, state, value = step(model, state, key)
        values.append(float(value))
    assert np.mean(values[-5:]) < 0.8 * values[0]
    return model.backbone


def test_the_backbone_stays_and_the_head_learns():
    backbone, (xs, labels) = pretrained(), second_task()
    model = Transferred(backbone, ox.init(HEAD)(KEY, backbone.spec(xs[0])))
    optimizer = optax.sgd(0.5)

    @jax.jit
    def step(model, state, key):
        def of_head(head):
            return loss(model.replace(head=head), xs, labels, key)

        (value, model), gradient = ox.value_and_grad(of_head, has_aux=True)(model.head)
        updates, state = optimizer.update(gradient, state)
        return model.replace(head=eqx.apply_updates(model.head, updates)), state, value

    state, values = optimizer.init(ox.partition(model.head)[0]), []
    for key in jax.random.split(KEY, 40):
        model, state, value = step(model, state, key)
        values.append(float(value))
    assert np.mean(values[-5:]) < 0.8 * values[0]
    jax.tree.map(np.testing.assert_array_equal, model.backbone, backbone)


def test_one_step_is_logistic_regression_on_fixed_features():
    backbone, (xs, labels) = pretrained(), second_task()
    head = ox.init(nn.Dense.of(2))(KEY, backbone.spec(xs[0]))
    model = Transferred(backbone, head)
    of_head = ox.grad(lambda head: loss(model.replace(head=head), xs, labels, KEY)[0])
    gradient = jax.jit(of_head)(head)

    dense, norm, *_ = backbone.layers
    hidden = np.asarray(xs @ dense.kernel + dense.bias)
    hidden = (hidden - norm.mean) / np.sqrt(np.asarray(norm.variance) + norm.epsilon)
    features = np.maximum(hidden * norm.scale + norm.bias, 0)
    logits = features @ np.asarray(head.kernel) + head.bias
    error = np.asarray(jax.nn.softmax(logits)) - np.eye(2)[np.asarray(labels)]
    np.testing.assert_allclose(gradient.kernel, features.T @ error / len(xs), atol=1e-5)
    np.testing.assert_allclose(gradient.bias, error.mean(0), atol=1e-5)
