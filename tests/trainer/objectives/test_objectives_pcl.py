"""ProtoNCE by cases worked by hand, by its statement in plain autograd, and by what its state does.

Shape suffixes: k clusters, d features.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from barlow_lab.specs import PclSpec
from trainer.objectives import k_means
from trainer.objectives.base import ImageEmbeddings, Pauses, Run, build_objective
from trainer.objectives.k_means import Clusters
from trainer.objectives.pcl import Pcl, Prototypes, concentrations, spreads

CPU = torch.device("cpu")
QUIET = Pauses(lambda: None, lambda: None)
DOUBLE = torch.float64


def objective(batch_size: int = 4, width: int = 4, epochs: int = 10, **fields: Any) -> Pcl:
    spec = PclSpec.model_validate({"name": "pcl", "queue": 8, "clusters": [3], "warmup_epochs": 0, **fields})
    made = build_objective(spec)
    assert isinstance(made, Pcl)
    made.begin(Run(batch_size, width, epochs, seed=5, device=CPU, dtype=DOUBLE))
    return made


def with_prototypes(made: Pcl, *of: tuple[Tensor, list[float], list[int]], images: list[int]) -> Pcl:
    """The objective within a step of these images, with clusterings: prototypes, concentrations, clusters of images."""
    made._clusterings = [
        Prototypes(c.to(DOUBLE), torch.tensor(phi, dtype=DOUBLE), torch.tensor(s).int()) for c, phi, s in of
    ]
    made.before_step(1, torch.tensor(images))
    return made


def rows(seed: int, count: int, width: int) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def test_infonce_by_hand() -> None:
    made = objective(batch_size=1, temperature=1.0, queue=3)
    made._queue_qd.copy_(torch.eye(4)[1:])
    view = 3 * torch.eye(4, dtype=DOUBLE)[:1]
    terms = made(view, view)
    assert terms.loss.item() == pytest.approx(math.log(1 + 3 / math.e))
    assert {name: part.item() for name, part in terms.parts.items()} == pytest.approx(
        {"instances": 0.7436684, "instances_top1": 100}, abs=1e-7
    )


@pytest.mark.parametrize(
    ("prototypes", "phi", "clusters", "expected"),
    [
        (torch.tensor([[0.6, 0.8]]), [0.2], [0], 0.0),
        (torch.eye(2), [0.2, 0.2], [0], 0.0067153485),
        (torch.eye(2), [0.1, 0.4], [0], 4.53989e-5),
        (torch.tensor([[1.0, 0.0]]), [0.2], [0] * 8, 0.0),  # no image is told from its own prototype
        (torch.eye(2), [0.2, 0.2], [-1], 0.0),  # what could not be read has none
    ],
    ids=["one cluster", "orthogonal", "orthogonal, of two concentrations", "a batch of one cluster", "unread"],
)
def test_prototypes_by_hand(prototypes: Tensor, phi: list[float], clusters: list[int], expected: float) -> None:
    count = len(clusters)
    made = with_prototypes(objective(batch_size=count, width=2), (prototypes, phi, clusters), images=list(range(count)))
    view = torch.tensor([[2.0, 0.0]], dtype=DOUBLE).expand(count, 2).clone().requires_grad_()
    terms = made(view, view)
    assert terms.parts["prototypes"].item() == pytest.approx(expected, abs=1e-8)
    (gradient,) = torch.autograd.grad(terms.loss, view)
    assert gradient.isfinite().all()


def test_concentrations_by_hand() -> None:
    counts = [4, 10, 2, 2, 1]
    distances = [1.0] * 4 + [0.5] * 10 + [1.0] * 2 + [0.0] * 2 + [0.3]
    nearest = torch.arange(5).repeat_interleave(torch.tensor(counts))
    found = spreads(Clusters(torch.zeros(5, 2), nearest, torch.tensor(distances, dtype=DOUBLE)), 10.0)
    assert found.tolist() == pytest.approx([0.3789232, 0.1669041, 0.4024296, 0.0, 0.4024296], abs=1e-7)
    scaled = concentrations(torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=DOUBLE), 0.2)
    assert scaled.tolist() == pytest.approx([0.104, 0.16, 0.24, 0.296])
    assert concentrations(torch.tensor([0.0] * 2 + [0.3] * 8), 0.2).min() == pytest.approx(0.02)
    assert concentrations(torch.zeros(3), 0.2).tolist() == pytest.approx([0.2] * 3)


@pytest.mark.parametrize("negatives", [2, 100])
def test_loss_and_gradient_are_those_of_its_statement(negatives: int) -> None:
    temperature, count, width = 0.3, 6, 5
    made = objective(count, width, queue=12, temperature=temperature, clusters=[3, 7], negatives=negatives)
    clusterings = [
        (F.normalize(rows(10 + k, k, width)), torch.linspace(0.1, 0.5, k).tolist(), torch.arange(20) % k)
        for k in (3, 7)
    ]
    images = [3, 1, 4, 1, 5, 9]
    made = with_prototypes(made, *((c, phi, s.tolist()) for c, phi, s in clusterings), images=images)
    z_a, z_b = rows(1, count, width).requires_grad_(), rows(2, count, width).requires_grad_()

    loss = torch.zeros((), dtype=DOUBLE)
    q, k = F.normalize(z_a), F.normalize(z_b).detach()
    for row, image in enumerate(images):
        logits = torch.cat([q[row] @ k[row, :, None], made._queue_qd @ q[row]]) / temperature
        loss = loss - logits.log_softmax(0)[0] / count
        for (centres, phi, clusters), drawn in zip(clusterings, made._drawn, strict=True):
            own = int(clusters[image])
            others = [int(one) for one in drawn if one != own][:negatives]
            assert len(others) == min(negatives, len(phi) - 1)
            logits = torch.stack([q[row] @ centres[one].to(DOUBLE) / phi[one] for one in [own, *others]])
            loss = loss - logits.log_softmax(0)[0] / count / 2
    terms = made(z_a, z_b)
    torch.testing.assert_close(terms.loss, loss, rtol=1e-12, atol=0)
    (expected,) = torch.autograd.grad(loss, z_a)
    found, none = torch.autograd.grad(2 * terms.loss, [z_a, z_b], allow_unused=True)
    torch.testing.assert_close(found, 2 * expected, rtol=1e-9, atol=1e-12)
    assert none is None
    torch.testing.assert_close(terms.loss, terms.parts["instances"] + terms.parts["prototypes"])


def test_the_drawn_prototypes_are_those_of_seed_step_and_clustering() -> None:
    made, again = (objective(clusters=[50, 50], negatives=9) for _ in range(2))
    draws = []
    for one in (made, again):
        one._clusterings = [Prototypes(torch.eye(50), torch.ones(50), torch.arange(50).int())] * 2
        for step in (1, 2):
            one.before_step(step, torch.arange(4))
            draws += [tuple(drawn.tolist()) for drawn in one._drawn]
    assert draws[:4] == draws[4:]
    assert len(set(draws)) == 4
    assert all(len(set(drawn)) == 10 for drawn in draws)


def test_the_queue_takes_in_a_batch_for_the_oldest_and_none_of_a_skipped_step() -> None:
    made = objective(batch_size=4, queue=12)
    first = made._queue_qd.clone()
    assert torch.equal(first, objective(batch_size=4, queue=12)._queue_qd)
    torch.testing.assert_close(first.norm(dim=1), torch.ones(12, dtype=DOUBLE))
    keys = [rows(step, 4, 4) for step in range(5)]
    for step in range(1, 5):
        made.before_step(step, torch.arange(4))
        made(keys[0], keys[step])
        made.after_step(torch.tensor(step != 2))
    expected = [keys[4], first[4:8], keys[3]]
    torch.testing.assert_close(made._queue_qd, F.normalize(torch.cat(expected)))


def test_the_warm_up_is_a_tenth_of_a_short_run_and_twenty_epochs_of_a_long_one() -> None:
    for epochs, left_out in ((1000, 20), (200, 20), (50, 5), (9, 0)):
        made = objective(epochs=epochs, warmup_epochs=None)
        assert [made.wants_images(epoch) for epoch in (left_out - 1, left_out)] == [False, True]


def test_images_are_clustered_by_direction_and_unreadable_ones_are_in_no_cluster() -> None:
    made = objective(width=2, clusters=[2, 3])
    angles = torch.tensor([0.0, 0.1, 3.0, 3.1])
    lengths = torch.tensor([1.0, 9.0, 5.0, 0.1])
    values = lengths[:, None] * torch.stack([angles.cos(), angles.sin()], 1)
    made.before_epoch(0, ImageEmbeddings(values, torch.tensor([0, 2, 3, 5]), 6), QUIET)
    two, three = made._clusterings
    of = two.of_images_i.tolist()
    assert (of[1], of[4]) == (-1, -1)
    assert of[0] == of[2] != of[3] == of[5]
    assert {of[0], of[3]} == {0, 1}
    middle = torch.tensor([math.cos(0.05), math.sin(0.05)], dtype=DOUBLE)
    torch.testing.assert_close(two.centres_kd[of[0]], middle, rtol=1e-6, atol=0)
    assert len(three.centres_kd) == 3
    assert two.concentrations_k.mean() == pytest.approx(0.2)


def test_k_means_finds_what_lies_apart_and_repeats_itself_in_blocks_of_any_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    centres = 10 * torch.eye(5, dtype=DOUBLE)
    belongs = torch.arange(60) % 5
    points = centres[belongs] + 0.1 * rows(3, 60, 5)
    beginnings = [torch.randperm(60, generator=torch.Generator().manual_seed(seed))[:5] for seed in range(8)]
    found = k_means.k_means(points, beginnings, 20, QUIET)
    for cluster in range(5):
        mine = found.nearest_n[belongs == cluster]
        assert (mine == mine[0]).all()
        torch.testing.assert_close(found.centres_kd[mine[0]], points[belongs == cluster].mean(0))
    torch.testing.assert_close(found.distances_n, (points - found.centres_kd[found.nearest_n]).norm(dim=1))
    monkeypatch.setattr(k_means, "DISTANCES", 35)
    again = k_means.k_means(points, beginnings, 20, QUIET)
    assert torch.equal(again.nearest_n, found.nearest_n)
    assert torch.equal(again.centres_kd, found.centres_kd)


def test_a_centre_that_no_point_is_nearest_to_goes_to_the_farthest_point() -> None:
    points = torch.tensor([[0.0], [0.0], [0.0], [1.0], [7.0]], dtype=DOUBLE)
    found = k_means.k_means(points, [torch.tensor([0, 1, 2])], 20, QUIET)
    assert sorted(found.centres_kd.flatten().tolist()) == [0.0, 1.0, 7.0]
    same = k_means.k_means(torch.ones(4, 2), [torch.tensor([0, 1, 2])], 20, QUIET)
    assert same.centres_kd.isfinite().all()
    assert same.distances_n.max() == 0


@pytest.mark.parametrize(("a", "b"), [((4, 2), (4, 3)), ((4, 2), (3, 2)), ((4,), (4,))])
def test_what_are_no_two_views_are_refused(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"two \(n, d\) embeddings"):
        objective()(torch.zeros(a), torch.zeros(b))
