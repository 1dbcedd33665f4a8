"""Keyed randomness: a draw depends on what it is for, never on what was drawn before it."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a stream is drawn for: streams of different purposes never meet, whatever the seed."""

    ORDER = 1
    VIEW = 2
    TEXTURE = 3
    PICTURE = 4
    SCENE = 5
    SHORT_SIDE = 6
    REGIONS = 7
    SVM = 8
    SVM_FOLDS = 9
    CLUSTERS = 10
    PROTOTYPES = 11
    SUB_BATCHES = 12
    SAMPLE = 13
    SAMPLE_VIEW = 14
    TRAJECTORIES = 15
    EXCHANGES = 16


def bits(purpose: Purpose, seed: int, *where: int) -> np.random.Philox:
    """The stream of (purpose, seed, where): at most three non-negative numbers.

    Philox is a function of a key and a counter. The first counter word runs within the stream and the other
    three hold `where`, so two streams share no block before 2^64 draws.
    """
    assert len(where) <= 3, "Philox has three counter words to spare"
    counter = np.array([0, *where, *[0] * (3 - len(where))], dtype=np.uint64)
    return np.random.Philox(key=np.array([seed, purpose], dtype=np.uint64), counter=counter)


def uniforms(purpose: Purpose, seed: int, *where: int, count: int) -> np.ndarray:
    """`count` float64 numbers, uniform in [0, 1), of the stream (purpose, seed, where)."""
    return np.random.Generator(bits(purpose, seed, *where)).random(count)


def permutation(purpose: Purpose, seed: int, *where: int, count: int) -> np.ndarray:
    """A permutation of 0..count-1, int64.

    Sorting raw 64-bit numbers, not Generator.permutation: NumPy keeps the raw stream stable for ever, but not the
    methods that use it.
    """
    return np.argsort(bits(purpose, seed, *where).random_raw(count), kind="stable")
