"""ProtoNCE, the objective of prototypical contrastive learning (PCL).

    L = mean_i [ -log e^{q_i.k_i / tau} / (e^{q_i.k_i / tau} + sum_{j in queue} e^{q_i.k_j / tau})
                 - 1/M sum_m log e^{q_i.c_s / phi_s} / (e^{q_i.c_s / phi_s} + sum_{j in R} e^{q_i.c_j / phi_j}) ]

q: view a through the network; k: view b through its momentum copy; c_s: the prototype of image i in clustering m, the
centre of its cluster; R: `negatives` other prototypes, drawn for the step. All have length 1, and the gradient goes
through q alone. Before each epoch after the warm-up, the images as they are go through the copy, and k-means gives the
clusters. With c a cluster's mean, before it is scaled to length 1, and v' its Z images,

    phi = sum ||v' - c|| / (Z log(Z + alpha)),

that of a cluster of one image the largest of all; they are clipped at the tenth and the ninetieth percentile, and
scaled to a mean of tau. Source: Li, Zhou, Xiong, Hoi 2021 (arXiv 2005.04966), equations 11 and 12, in the form of its
reference code (salesforce/PCL, main_pcl.py); where this differs: docs/other-objectives.md.
Tests: tests/trainer/objectives/test_objectives_pcl.py, and for several ranks `pcl` in tests/support/rank_laws.py.

Shape suffixes: n images of this rank's batch, N of all ranks', d features, q keys in the queue, k clusters, r + 1
prototypes that are drawn, i images of the run.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from barlow_lab.specs.objectives import PclSpec
from trainer.data.keyed import Purpose, permutation
from trainer.models.seeding import drawn_from
from trainer.objectives.base import ImageEmbeddings, Objective, Pauses, Run, Terms
from trainer.objectives.k_means import Clusters, k_means, sums_of_clusters
from trainer.runtime import collectives
from trainer.runtime.transfer import on_device

LEAST = 0.1
"""The least concentration is this part of the temperature: where a tenth of the clusters are of equal images it would
be 0, and the loss be divided by it."""


@dataclass(frozen=True, slots=True)
class Prototypes:
    """One clustering of the run's images."""

    centres_kd: Tensor
    concentrations_k: Tensor
    of_images_i: Tensor
    """The cluster of each image of the run, int32; -1 of one that could not be read."""

    def scaled(self, which: Tensor, dtype: torch.dtype) -> Tensor:
        """The prototypes of these clusters, by their concentrations: (..., d)."""
        return (self.centres_kd[which] / self.concentrations_k[which, None]).to(dtype)


class Pcl(Objective):
    """`pcl` as its spec asks for it: queue and prototypes are its state."""

    needs_indices = True

    def __init__(self, spec: PclSpec) -> None:
        super().__init__(spec)
        self.spec: PclSpec
        self.momentum = spec.momentum
        self._clusterings: list[Prototypes] = []

    def begin(self, run: Run) -> None:
        self._run = run
        with drawn_from(run.seed, "queue"):
            keys_qd = torch.randn(self.spec.queue, run.width, dtype=run.dtype)
        self._queue_qd = F.normalize(keys_qd).to(run.device)
        self._warmup = self.spec.epochs_without_prototypes(run.epochs)
        self._indices_n: Tensor | None = None

    def wants_images(self, epoch: int) -> bool:
        return epoch >= self._warmup

    def before_epoch(self, epoch: int, embeddings: ImageEmbeddings, pauses: Pauses) -> None:
        run, spec = self._run, self.spec
        points_nd = F.normalize(embeddings.values_nd.to(run.dtype))
        count, found = len(points_nd), []
        for place, asked in enumerate(spec.clusters):
            clusters = min(asked, count)
            orders = (
                permutation(Purpose.CLUSTERS, run.seed, epoch, place, restart, count=count)
                for restart in range(spec.restarts)
            )
            beginnings = (torch.from_numpy(order[:clusters]).to(run.device) for order in orders)
            made = k_means(points_nd, beginnings, spec.iterations, pauses)
            of_images_i = torch.full((embeddings.images,), -1, dtype=torch.int32, device=run.device)
            of_images_i[embeddings.indices_n] = made.nearest_n.int()
            scales_k = concentrations(spreads(made, spec.smoothing), spec.temperature)
            found.append(Prototypes(F.normalize(made.centres_kd), scales_k, of_images_i))
        self._clusterings = found

    def before_step(self, step: int, indices_n: Tensor) -> None:
        self._step = step
        self._indices_n = indices_n
        self._drawn = [self._draw(step, place, len(one.centres_kd)) for place, one in enumerate(self._clusterings)]

    def _draw(self, step: int, place: int, clusters: int) -> Tensor:
        """The clusters whose prototypes are negatives of every image of the step, and one more: an image that finds its
        own among them has the others, and one that does not has all but the last. Where there are no more, all."""
        order = permutation(Purpose.PROTOTYPES, self._run.seed, step, place, count=clusters)
        return on_device(order[: self.spec.negatives + 1], self._run.device)

    def __call__(self, z_a_nd: Tensor, z_b_nd: Tensor) -> Terms:
        if z_a_nd.shape != z_b_nd.shape or z_a_nd.ndim != 2:
            raise ValueError(f"two (n, d) embeddings are needed, not {tuple(z_a_nd.shape)} and {tuple(z_b_nd.shape)}")
        dtype = torch.promote_types(z_a_nd.dtype, torch.float32)
        temperature = self.spec.temperature
        with torch.autocast(z_a_nd.device.type, enabled=False):
            queries_nd = F.normalize(z_a_nd.to(dtype))
            self._keys_nd = F.normalize(z_b_nd.detach().to(dtype))
            own_n = (queries_nd * self._keys_nd).sum(1) / temperature
            others_nq = queries_nd @ self._queue_qd.to(dtype).mT / temperature
            instances_n = _missed(own_n, others_nq)
            sums = {"instances": instances_n.sum(), "instances_top1": _found(own_n, others_nq)}
            if self._clusterings and self._indices_n is not None:
                each = [self._prototypes(queries_nd, *one) for one in zip(self._clusterings, self._drawn, strict=True)]
                sums |= {name: torch.stack([one[name] for one in each]).mean() for name in each[0]}
            samples = len(queries_nd) * collectives.world_size()
            means = dict(zip(sums, collectives.sum_over_ranks(torch.stack([*sums.values()]) / samples), strict=True))
        loss = means["instances"] + means["prototypes"] if "prototypes" in means else means["instances"]
        return Terms(loss, {name: mean.detach() for name, mean in means.items()})

    def _prototypes(self, queries_nd: Tensor, clustering: Prototypes, drawn_r: Tensor) -> dict[str, Tensor]:
        """The sums over this rank's images, for one clustering."""
        assert self._indices_n is not None
        cluster_n = clustering.of_images_i[self._indices_n].long()
        known_n = cluster_n >= 0  # one that could not be read then, and can now, has no prototype
        cluster_n = cluster_n.clamp(min=0)
        own_n = (queries_nd * clustering.scaled(cluster_n, queries_nd.dtype)).sum(1)
        left_out_nr = drawn_r == cluster_n[:, None]
        if len(drawn_r) < len(clustering.centres_kd):
            left_out_nr[:, -1] |= ~left_out_nr.any(1)
        others_nr = queries_nd @ clustering.scaled(drawn_r, queries_nd.dtype).mT
        others_nr = others_nr.masked_fill(left_out_nr, -torch.inf)
        return {
            "prototypes": _missed(own_n, others_nr).masked_fill(~known_n, 0).sum(),
            "prototypes_top1": _found(own_n, others_nr),
        }

    def after_step(self, good: Tensor) -> None:
        keys_nd = collectives.all_gather(self._keys_nd).flatten(0, 1)
        batches = len(self._queue_qd) // len(keys_nd)
        place_nd = self._queue_qd.view(batches, len(keys_nd), -1)[(self._step - 1) % batches]
        place_nd.copy_(torch.where(good, keys_nd, place_nd))

    def state_dict(self) -> dict[str, Any]:
        return {"queue": self._queue_qd, "prototypes": [asdict(one) for one in self._clusterings]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._queue_qd.copy_(state["queue"])
        self._clusterings = [Prototypes(**one) for one in state["prototypes"]]


def spreads(clusters: Clusters, smoothing: float) -> Tensor:
    """phi of each cluster as it is found, (k,)."""
    counts_k = torch.bincount(clusters.nearest_n, minlength=len(clusters.centres_kd))
    sums_k = sums_of_clusters(clusters.distances_n, clusters.nearest_n, counts_k)
    spreads_k = sums_k / (counts_k.clamp(min=1) * (counts_k + smoothing).log())
    alone_k = counts_k <= 1
    return torch.where(alone_k, spreads_k.masked_fill(alone_k, 0).max(), spreads_k)


def concentrations(spreads_k: Tensor, temperature: float) -> Tensor:
    """The same without outliers, scaled to a mean of the temperature."""
    low, high = spreads_k.quantile(spreads_k.new_tensor([0.1, 0.9]))
    clipped_k = spreads_k.clamp(low, high)
    mean = clipped_k.mean()
    return temperature * torch.where(mean > 0, clipped_k / mean, 1.0).clamp(min=LEAST)


def _missed(own_n: Tensor, others_nj: Tensor) -> Tensor:
    """-log of the share of e^own in it and all of e^others."""
    return torch.logaddexp(own_n, others_nj.logsumexp(1)) - own_n


def _found(own_n: Tensor, others_nj: Tensor) -> Tensor:
    """100 times the rows whose own is above all others."""
    return 100 * (own_n > others_nj.amax(1)).sum().to(own_n.dtype)
