"""Who looks at features or embeddings leaves them as they are, so that what each sees hangs on no order."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import numpy as np
import runs
import torch
from knn_cases import Case, case
from looks import Looking
from torch import Tensor

from trainer.diagnostics.correlation_record import record_arrays
from trainer.diagnostics.correlation_statistics import correlation_statistics
from trainer.diagnostics.effective_rank import effective_rank, singular_values
from trainer.diagnostics.health import Health
from trainer.evaluation.features import Features
from trainer.evaluation.knn import true_places
from trainer.evaluation.linear_cached import Training, classify, labelled
from trainer.runtime.context import Context
from trainer.runtime.units import Units


def listeners(one: Case, context: Context) -> dict[str, Callable[[Tensor, Tensor], list[float]]]:
    """Each returns what it saw of the features of a training and a test split, of which the last rows are a batch."""
    units = Units(context)

    def neighbours(train: Tensor, test: Tensor) -> list[float]:
        return true_places(
            Features(train, torch.arange(len(train)), len(train)), one.train_labels,
            Features(test, torch.arange(len(test)), len(test)), one.test_labels,
            k=one.k, temperature=0.1, classes=one.classes, phase="", context=context, units=units,
        ).tolist()  # fmt: skip

    def classifier(train: Tensor, test: Tensor) -> list[float]:
        splits = (
            labelled(Features(values, torch.arange(len(values)), len(values)), labels, "", context)
            for values, labels in ((train, one.train_labels), (test, one.test_labels))
        )
        training = Training.of_protocol(epochs=2, seed=0)
        return [epoch.loss for epoch in classify(training, *splits, classes=one.classes, phase="", units=units)]

    def correlation(train: Tensor, test: Tensor) -> list[float]:
        arrays = record_arrays(correlation_statistics(train[-len(test) :], test, tick=lambda: None), step=1)
        return np.concatenate([array.reshape(-1).astype(float) for array in arrays.values()]).tolist()

    def warns(train: Tensor, test: Tensor) -> list[float]:
        view = torch.arange(3 * 16.0).reshape(1, 3, 4, 4)
        return [Looking(context).at(Health, 1, (view, view), train, test).last_words is None]

    return {
        "neighbours": neighbours,
        "classifier": classifier,
        "correlation": correlation,
        "rank": lambda train, _: [effective_rank(singular_values(train))],
        "warnings": warns,
    }


def test_each_sees_the_same_in_every_order(tmp_path: Path) -> None:
    one = case(7, train=30, test=8, k=4, temperature=0.1, ties=False)
    asked = listeners(one, runs.context(tmp_path))
    alone = {name: look(one.train.clone(), one.test.clone()) for name, look in asked.items()}
    for order in permutations(asked):
        train, test = one.train.clone(), one.test.clone()
        assert {name: asked[name](train, test) for name in order} == alone, order
        assert torch.equal(train, one.train)
        assert torch.equal(test, one.test), order
