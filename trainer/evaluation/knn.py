"""Weighted k nearest neighbours: protocol `knn/1`.

Wu et al. 2018 (arXiv 1805.01978), section 3.4: the k training images most similar by cosine vote for their class,
each with weight exp(similarity / temperature).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.evaluation.features import Features
from trainer.evaluation.scoring import top, top5, true_class_places
from trainer.evaluation.units import Units, rounds, share
from trainer.outcome import BadSpec
from trainer.runtime.context import Context
from trainer.specs import KnnSpec

PROTOCOL = "knn/1"
BLOCK_VALUES = 2**23
"""Similarities held at once: 32 MiB, and about three times that while neighbours are chosen."""


def run_knn(
    spec: KnnSpec, train: Features, test: Features, *, classes: int, context: Context, units: Units
) -> dict[str, Any]:
    """Classify every test image by the training images; metrics `knn_top1` and `knn_top5` in percent, at step 0.

    Raises:
        BadSpec: there are fewer training images than neighbours.
        Stopped: a stop was asked for.
    """
    if spec.k > len(train):
        raise BadSpec(f"k {spec.k} is above the {len(train)} training images; use at most {len(train)}")
    rows = max(1, BLOCK_VALUES // len(train))
    total = rounds(len(test), context, rows)
    mine = share(len(test), context)
    queries, truth = test.values[mine.start : mine.stop], test.labels[mine.start : mine.stop]
    votes = class_votes(train, queries, k=spec.k, temperature=spec.temperature, classes=classes, rows=rows)
    places: list[Tensor] = []
    for done in range(1, total + 1):
        scores = next(votes, None)
        if scores is not None:
            start = (done - 1) * rows
            places.append(_places(scores, truth[start : start + len(scores)]))
        context.progress("neighbours", step=done, steps=total)
        units.finished()
    everyone = context.all_gather_rows(torch.cat([truth.new_empty(0), *places]))
    assert len(everyone) == len(test), "every test image once"
    top_1, top_5 = top(everyone, 1), top5(everyone, classes)
    if context.journal is not None:
        context.journal.metrics(0, 0, {"knn_top1": top_1} | ({} if top_5 is None else {"knn_top5": top_5}))
    return {
        "protocol": PROTOCOL,
        "top1": {"last": top_1, "best": top_1},
        "top5": None if top_5 is None else {"last": top_5, "best": top_5},
        "k": spec.k,
        "temperature": spec.temperature,
    }


def class_votes(
    train: Features, queries: Tensor, *, k: int, temperature: float, classes: int, rows: int
) -> Iterator[Tensor]:
    """Votes for each class, (rows, classes) float64 a block: sum of exp((s - s_max) / temperature) over neighbours.

    Dividing all votes of a query by exp(s_max / temperature) changes no order, and no temperature overflows. Neighbours
    are exact; of training images that are equally similar those of lower index come first.
    """
    bank = F.normalize(train.values, dim=1)
    for block in torch.split(F.normalize(queries, dim=1), rows):
        if not len(block):
            return
        similarities = block @ bank.T
        neighbours = nearest(similarities, k)
        chosen = similarities.gather(1, neighbours).double()
        weights = ((chosen - chosen.amax(dim=1, keepdim=True)) / temperature).exp()
        labels = train.labels[neighbours]
        votes = chosen.new_zeros((len(block), classes))
        for place in range(k):  # one neighbour at a time: the order of the sum, and so its bits, is always the same
            votes.scatter_add_(1, labels[:, place : place + 1], weights[:, place : place + 1])
        yield votes


def nearest(similarities: Tensor, k: int) -> Tensor:
    """(q, n) → (q, k) int64: columns of the k largest, in ascending order of column; ties go to the lower column.

    topk alone leaves open which of the equal ones it takes.
    """
    kth = similarities.topk(k, dim=1).values[:, -1:]
    above, tied = similarities > kth, similarities == kth
    room = k - above.sum(dim=1, keepdim=True)
    chosen = above | (tied & (tied.cumsum(dim=1, dtype=torch.int32) <= room))
    return chosen.nonzero()[:, 1].view(-1, k)


def _places(votes: Tensor, labels: Tensor) -> Tensor:
    # A class without a vote is never predicted, not even as the fifth.
    return true_class_places(votes.masked_fill(votes == 0, -torch.inf), labels).where(
        votes.gather(1, labels[:, None])[:, 0] > 0, votes.shape[1]
    )
