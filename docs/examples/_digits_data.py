"""The handwritten digits that come with scikit-learn, split once and for all."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


class Digits(NamedTuple):
    train_images: Float[np.ndarray, "n 8 8 1"]
    train_labels: Int[np.ndarray, "n"]
    test_images: Float[np.ndarray, "m 8 8 1"]
    test_labels: Int[np.ndarray, "m"]


def load() -> Digits:
    """1,797 images of 8x8 pixels from 0 to 1; 20% of each digit held out, whatever the seed."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    labels = labels.astype(np.int32)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=0.2, stratify=labels, random_state=0
    )
    return Digits(train_images, train_labels, test_images, test_labels)
