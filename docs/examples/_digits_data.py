"""The handwritten digits that come with scikit-learn, split once and for all."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


class Images(NamedTuple):
    images: Float[np.ndarray, "n 8 8 1"]
    labels: Int[np.ndarray, "n"]

    def batch(self, i: int, size: int, *, seed: tuple[int, ...]) -> Images:
        """Return the i-th batch of an epoch, whose order follows from the seed alone."""
        order = np.random.default_rng(seed).permutation(len(self.labels))
        chosen = order[i * size : (i + 1) * size]
        return Images(self.images[chosen], self.labels[chosen])


class Digits(NamedTuple):
    train: Images
    validation: Images
    test: Images


def load() -> Digits:
    """Return 1,797 images of 8x8 pixels from 0 to 1, split in the same way whatever the seed.

    A fifth of each digit is held out for the test, and a tenth of the rest for validation.
    """
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    rest, test = _split(Images(images, labels.astype(np.int32)), 0.2)
    train, validation = _split(rest, 0.1)
    return Digits(train, validation, test)


def _split(part: Images, share: float) -> tuple[Images, Images]:
    images, others, labels, theirs = train_test_split(
        *part, test_size=share, stratify=part.labels, random_state=0
    )
    return Images(images, labels), Images(others, theirs)
