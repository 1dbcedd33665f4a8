"""k-means of points that every rank holds: the same clusters on every rank, and the same again when it is repeated.

Lloyd's iterations from randomly chosen points, the best of several beginnings, as the k-means of faiss that PCL uses.
The ranks share the search for the nearest centre, in blocks whose size does not depend on their number; sums are taken
in the order of the points, by no atomic operation. What is random is given by the caller.

Shape suffixes: n points, d features, k clusters, b points of a block.
Tests: tests/trainer/objectives/test_objectives_pcl.py, and for several ranks `pcl` in tests/support/rank_laws.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.objectives.base import Pauses
from trainer.runtime import collectives

DISTANCES = 2**26
"""Distances that are held at once: 256 MiB in float32."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """`centres_kd` are the means of their points, `nearest_n` is each point's centre, and `distances_n` how far it is
    from it (not squared)."""

    centres_kd: Tensor
    nearest_n: Tensor
    distances_n: Tensor


def k_means(points_nd: Tensor, beginnings: Iterable[Tensor], iterations: int, pauses: Pauses) -> Clusters:
    """The clusters with the smallest sum of squared distances of those that begin with the points `beginnings`, (k,)
    int64 each. Every rank calls it with the same.

    A centre that no point is nearest to goes to a point that is farthest from its own.
    """
    best: Clusters | None = None
    least = torch.inf
    for beginning_k in beginnings:
        found = _descend(points_nd, points_nd[beginning_k], iterations, pauses)
        spread = float(found.distances_n.double().square().sum())
        if best is None or spread < least:
            best, least = found, spread
    assert best is not None, "k-means has to begin somewhere"
    return best


def _descend(points_nd: Tensor, centres_kd: Tensor, iterations: int, pauses: Pauses) -> Clusters:
    nearest_n, distances_n = _nearest(points_nd, centres_kd, pauses)
    for _ in range(iterations):
        centres_kd = _means(points_nd, nearest_n, distances_n, len(centres_kd))
        before_n = nearest_n
        nearest_n, distances_n = _nearest(points_nd, centres_kd, pauses)
        if torch.equal(nearest_n, before_n):
            break
    return Clusters(centres_kd, nearest_n, distances_n)


def _nearest(points_nd: Tensor, centres_kd: Tensor, pauses: Pauses) -> tuple[Tensor, Tensor]:
    """Each point's nearest centre, and how far it is."""
    rank, ranks = collectives.rank(), collectives.world_size()
    squares_k = centres_kd.square().sum(1)
    nearest_n = torch.zeros(len(points_nd), dtype=torch.int64, device=points_nd.device)
    distances_n = points_nd.new_zeros(len(points_nd))
    size = max(1, DISTANCES // len(centres_kd))
    for start in range(rank * size, len(points_nd), ranks * size):
        block_bd = points_nd[start : start + size]
        # |c|² - 2 p c: without |p|², which is the same for every centre.
        nearest_b = torch.addmm(squares_k, block_bd, centres_kd.mT, alpha=-2).argmin(1)
        nearest_n[start : start + size] = nearest_b
        distances_n[start : start + size] = (block_bd - centres_kd[nearest_b]).norm(dim=1)
        pauses.working()
    # One rank has a number of each point, and the others 0.
    collectives.all_reduce_(nearest_n)
    collectives.all_reduce_(distances_n)
    pauses.finished()
    return nearest_n, distances_n


def _means(points_nd: Tensor, nearest_n: Tensor, distances_n: Tensor, clusters: int) -> Tensor:
    counts_k = torch.bincount(nearest_n, minlength=clusters)
    means_kd = sums_of_clusters(points_nd, nearest_n, counts_k) / counts_k.clamp(min=1)[:, None]
    empty = torch.nonzero(counts_k == 0).flatten()
    farthest = distances_n.argsort(descending=True, stable=True)[: len(empty)]
    means_kd[empty[: len(farthest)]] = points_nd[farthest]
    return means_kd


def sums_of_clusters(values_n: Tensor, nearest_n: Tensor, counts_k: Tensor) -> Tensor:
    """The sum of each cluster's rows, (k, ...) of `values_n` (n, ...), in their order."""
    by_cluster_n = values_n[nearest_n.argsort(stable=True)]
    sums_k: Tensor = torch.segment_reduce(by_cluster_n, "sum", lengths=counts_k, axis=0)
    return sums_k
