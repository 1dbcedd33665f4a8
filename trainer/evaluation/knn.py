"""Weighted k nearest neighbours: protocol `knn/1`.

Wu et al. 2018 (arXiv 1805.01978), section 3.4: the k training images most similar by cosine vote for their class,
each with weight exp(similarity / temperature).

Exact, to the last bit
----------------------
Every component of a feature of unit length is rounded to a multiple of 2^-26. A product of two of them is then a
multiple of 2^-52, and by Cauchy-Schwarz no partial sum of a similarity reaches 2, so float64 holds each of them
without rounding: a similarity does not depend on the order of its sum, hence not on blocks, ranks or the device. What
the rounding costs is below 1e-6, less than a product in float32 would.

Memory
------
Each rank holds the features of its own share of the training images and of the test images, in float32. Beside them
the search holds at most PEAK_BYTES of tensors at once, however many images there are (and for each test image the place
that is found): a block of queries goes to all ranks, each compares it with its share block by block and keeps the k
best, and these candidates are joined. ImageNet (1,281,167 and 50,000 images, 2,048 features) is 10.9 GB shared out over
the ranks, and half a GiB on each.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from barlow_lab.specs import KnnSpec
from trainer.data.registry import open_data_set
from trainer.evaluation.features import Features, labels_on
from trainer.evaluation.frozen import frozen_features
from trainer.evaluation.scoring import scores_of, true_class_places
from trainer.failures import BadSpec
from trainer.runtime import collectives
from trainer.runtime.context import Context
from trainer.runtime.started import journal_started
from trainer.runtime.units import Stopped, Units

PHASE = "neighbours"
BLOCK_VALUES = 2**23
"""Most numbers in any one tensor of a block: 64 MiB in float64."""
BANK_ROWS = 4096
"""Most training images in a block: with more the queries would be few, and the product slow."""
PEAK_BYTES = 8 * 8 * BLOCK_VALUES
"""Eight such tensors."""
GRID = 2.0**26


def run_knn(spec: KnnSpec, context: Context) -> dict[str, Any] | None:
    """Classify every test image by the training images; None if a stop was asked for. Metrics `knn_top1` and
    `knn_top5` in percent, at step 0.

    Raises:
        BadSpec: there are fewer training images than neighbours, or the backbone cannot be used.
        DataError: the data cannot be used.
    """
    journal_started(context, spec, resume_step=0)
    units = Units(context)
    try:
        found = frozen_features(spec, open_data_set, context, units)
        classes = found.splits.classes
        places = true_places(
            found.train,
            labels_on(context.device, found.splits.train),
            found.test,
            labels_on(context.device, found.splits.test),
            k=spec.k,
            temperature=spec.temperature,
            classes=classes,
            phase=PHASE,
            context=context,
            units=units,
        )
    except Stopped:
        return None
    scores = scores_of(places, classes)
    if context.journal is not None:
        context.journal.metrics(0, 0, {f"knn_{name}": value for name, value in scores.items()})
    return {
        "headline": "top1",
        "scores": {name: {"last": value, "best": value} for name, value in scores.items()},
        "k": spec.k,
        "temperature": spec.temperature,
        **found.facts(),
    }


def true_places(
    train: Features,
    train_labels: Tensor,
    test: Features,
    test_labels: Tensor,
    *,
    k: int,
    temperature: float,
    classes: int,
    phase: str,
    context: Context,
    units: Units,
) -> Tensor:
    """The place of the true class of every test image among the votes, (m,) int64 in the order of the data set, 0 is
    first; the same on every rank.

    The features are this rank's shares, of any length, and stay as they are; labels are those of the whole splits,
    (n,) int64 on the device. A class without a vote is never predicted: its place is behind all classes.

    Raises:
        BadSpec: there are fewer training images than neighbours.
        Stopped: a stop was asked for.
    """
    if k > train.total:
        raise BadSpec(f"k {k} is above the {train.total} training images; use at most {train.total}")
    query_rows, bank_rows = block_rows(train.values.shape[1], k, classes, context.world_size)
    most = int(collectives.all_reduce_max_(torch.tensor(len(test), device=context.device)))
    total = -(-most // query_rows)
    places: list[Tensor] = []
    shown: list[Tensor] = []
    for done in range(1, total + 1):  # ranks with less to do take part with empty blocks
        mine = slice((done - 1) * query_rows, done * query_rows)
        queries = context.all_gather_rows(test.values[mine])
        images = context.all_gather_rows(test.indices[mine])
        similarities, rows = nearest_of_share(train.values, queries, k, bank_rows, units, phase)
        similarities, neighbours = _joined(similarities, _images_of(train, rows), k)
        votes = class_votes(similarities, train_labels[neighbours], temperature=temperature, classes=classes)
        places.append(_places(votes, test_labels[images]))
        shown.append(images)
        units.progress(phase, step=done, steps=total)
        units.finished()
    everyone = torch.cat(shown)
    order = everyone.argsort()
    assert len(everyone) == test.total, "every test image"
    assert (everyone[order[1:]] > everyone[order[:-1]]).all(), "and none twice"
    return torch.cat(places)[order]


def unit_rows(values: Tensor) -> Tensor:
    """Rows of length 1 on the grid of multiples of 2^-26: (n, d) float32 → (n, d) float64.

    Each is a number of float32, which holds what is on the grid below 1/4, and rounds the rest to a coarser grid, which
    lies on it. A row of zeros stays as it is.
    """
    wide = values.double()
    wide /= torch.linalg.vector_norm(wide, dim=1, keepdim=True).clamp_min_(torch.finfo(torch.float64).tiny)
    rounded = wide.mul_(GRID).round_().div_(GRID).float()
    return wide.copy_(rounded)


def block_rows(width: int, k: int, classes: int, ranks: int) -> tuple[int, int]:
    """(queries of one rank, training images) in a block, such that none of its tensors has more than BLOCK_VALUES
    numbers: the features, the similarities beside the k best so far, all ranks' candidates, and the votes. One of each
    at least."""
    bank = max(1, min(BANK_ROWS, BLOCK_VALUES // width))
    queries = BLOCK_VALUES // max(width, bank + k, ranks * k, classes)
    return max(1, queries // ranks), bank


def nearest_of_share(
    bank: Tensor, queries: Tensor, k: int, bank_rows: int, units: Units, phase: str
) -> tuple[Tensor, Tensor]:
    """The k rows of `bank` most similar by cosine to each query, in ascending order of row; of equally similar ones the
    first.

    (n, d) and (q, d) float32, of any length: a block is brought to unit length as it is compared, which costs little
    beside its products, and whoever looks at the features after this search sees what it saw. Returns similarities
    (q, k) float64 and rows (q, k) int64; where the bank has fewer than k rows the rest is -inf and -1.
    """
    wide = unit_rows(queries)
    best = wide.new_full((len(queries), k), -torch.inf)
    rows = torch.full((len(queries), k), -1, dtype=torch.int64, device=queries.device)
    for start in range(0, len(bank), bank_rows):
        found = torch.cat([best, wide @ unit_rows(bank[start : start + bank_rows]).T], dim=1)
        columns = nearest(found, k)
        best = found.gather(1, columns)
        rows = torch.where(columns < k, rows.gather(1, columns.clamp_max(k - 1)), columns + (start - k))
        units.working(phase)
    return best, rows


def nearest(similarities: Tensor, k: int) -> Tensor:
    """(q, n) → (q, k) int64: columns of the k largest, in ascending order of column; ties go to the lower column.

    topk alone leaves open which of the equal ones it takes.
    """
    kth = similarities.topk(k, dim=1).values[:, -1:]
    above, tied = similarities > kth, similarities == kth
    room = k - above.sum(dim=1, keepdim=True)
    chosen = above | (tied & (tied.cumsum(dim=1, dtype=torch.int32) <= room))
    return chosen.nonzero()[:, 1].view(-1, k)


def _images_of(share: Features, rows: Tensor) -> Tensor:
    """Images of a share's rows by their place in the data set; -1 stays -1."""
    if not len(share):
        return rows
    return torch.where(rows < 0, rows, share.indices[rows.clamp_min(0)])


def _joined(similarities: Tensor, images: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of all ranks' candidates, (q, k) each: the shares are in order, so are their images side by side."""
    # (W, q, k) -> (q, W k)
    every, where = (collectives.all_gather(t).transpose(0, 1).flatten(1) for t in (similarities, images))
    columns = nearest(every, k)
    return every.gather(1, columns), where.gather(1, columns)


def class_votes(similarities: Tensor, labels: Tensor, *, temperature: float, classes: int) -> Tensor:
    """(q, k) float64, (q, k) int64 → votes (q, classes) float64: the sum of exp((s - s_max) / temperature) over the
    neighbours of a class, added in their order.

    Dividing all votes of a query by exp(s_max / temperature) changes no order, and no temperature overflows.
    """
    weights = ((similarities - similarities.amax(dim=1, keepdim=True)) / temperature).exp()
    votes = weights.new_zeros((len(weights), classes))
    for place in range(weights.shape[1]):  # one neighbour at a time: the order of the sum, and so its bits, is fixed
        votes.scatter_add_(1, labels[:, place : place + 1], weights[:, place : place + 1])
    return votes


def _places(votes: Tensor, labels: Tensor) -> Tensor:
    return true_class_places(votes.masked_fill(votes == 0, -torch.inf), labels).where(
        votes.gather(1, labels[:, None])[:, 0] > 0, votes.shape[1]
    )
