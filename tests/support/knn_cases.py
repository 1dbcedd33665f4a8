"""Nearest neighbours by integers, one at a time: what trainer.evaluation.knn has to find to the last bit."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainer.evaluation.features import Features
from trainer.evaluation.knn import true_places
from trainer.runtime.context import Context
from trainer.runtime.units import Units


@dataclass(frozen=True)
class Case:
    """Features and labels of two splits, and how to vote."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    k: int
    temperature: float
    classes: int


def case(seed: int, *, train: int, test: int, k: int, temperature: float, ties: bool, width: int = 7) -> Case:
    """Small whole numbers where `ties`: many images then lie in one direction, and some have no feature at all."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 9))

    def features(count: int) -> Tensor:
        values = rng.integers(-1, 2, (count, width)) if ties else rng.normal(size=(count, width))
        return torch.from_numpy(values).float()

    labels = [torch.from_numpy(rng.integers(0, classes, count)) for count in (train, test)]
    return Case(features(train), labels[0], features(test), labels[1], k, temperature, classes)


def plain_places(case: Case) -> list[int]:
    """The place of the true class: similarities of features on the grid are whole multiples of 2^-52, so Python's
    integers have them exactly; ties go to the lower image, and the votes of equal classes to the lower class."""
    bank, queries = (_on_grid(values) for values in (case.train, case.test))
    places = []
    for query, truth in zip(queries, case.test_labels.tolist(), strict=True):
        similarities = [sum(a * b for a, b in zip(query, row, strict=True)) for row in bank]
        chosen = sorted(sorted(range(len(bank)), key=lambda i: (-similarities[i], i))[: case.k])
        nearest = max(similarities[i] for i in chosen)
        votes: dict[int, float] = {}
        for image in chosen:
            weight = float(np.exp((similarities[image] - nearest) / 2**52 / case.temperature))
            label = int(case.train_labels[image])
            votes[label] = votes.get(label, 0.0) + weight
        ranking = sorted((c for c in votes if votes[c] > 0), key=lambda c: (-votes[c], c))
        places.append(ranking.index(truth) if truth in ranking else case.classes)
    return places


def _on_grid(values: Tensor) -> list[list[int]]:
    rows = values.double().numpy()
    lengths = np.sqrt((rows**2).sum(axis=1, keepdims=True))
    unit = np.rint(np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0) * 2**26) / 2**26
    return [[int(x * 2**26) for x in row] for row in unit.astype(np.float32).tolist()]


def places(case: Case, context: Context) -> Tensor:
    """By the code under test, from this rank's shares of both splits."""
    train, test = _shares(case, context)
    return _found(case, train, test, context)


def peak_bytes(case: Case, context: Context) -> int:
    """The most that the search holds at once beside the features."""
    train, test = _shares(case, context)
    with LiveBytes() as counted:
        _found(case, train, test, context)
    return counted.peak


def _shares(case: Case, context: Context) -> tuple[Features, Features]:
    def share(values: Tensor) -> Features:
        mine = slice(*(len(values) * r // context.world_size for r in (context.rank, context.rank + 1)))
        return Features(values[mine].clone(), torch.arange(len(values))[mine], len(values))

    return share(case.train), share(case.test)


def _found(case: Case, train: Features, test: Features, context: Context) -> Tensor:
    return true_places(
        train, case.train_labels, test, case.test_labels,
        k=case.k, temperature=case.temperature, classes=case.classes,
        phase="neighbours", context=context, units=Units(context),
    )  # fmt: skip


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that are made within it and are still there."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._held: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                self._hold(storage.data_ptr(), storage.nbytes(), leaf, new=storage.data_ptr() not in given)
        self.peak = max(self.peak, self.live)
        return out

    def _hold(self, place: int, size: int, tensor: Tensor, *, new: bool) -> None:
        if place not in self._held:
            if not new:
                return  # a view of what was there before
            self._held[place] = 0
            self.live += size
        self._held[place] += 1
        weakref.finalize(tensor, self._let_go, place, size)

    def _let_go(self, place: int, size: int) -> None:
        self._held[place] -= 1
        if not self._held[place]:
            del self._held[place]
            self.live -= size
