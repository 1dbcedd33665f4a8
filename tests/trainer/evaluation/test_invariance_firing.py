"""The invariance score against its formula in plain numpy, and against answers that are known."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.evaluation.invariance.firing import (
    Thresholds,
    class_scores,
    demystifying_thresholds,
    exchanged,
    formula_thresholds,
    local_rates,
)

CLASSES = 4


def of_class(images: int) -> Tensor:
    return torch.arange(CLASSES).repeat_interleave(images)


def judged(
    reference: Tensor, labels: Tensor, trajectories: Tensor, of: Tensor, top: int, *, one_sign: bool = True
) -> tuple[Thresholds, Tensor, float]:
    """Thresholds, L (classes, d) and the score, of trajectories (n, steps, d)."""
    rate = Fraction(1, CLASSES)
    found = (
        formula_thresholds(reference, labels, rate, CLASSES) if one_sign else demystifying_thresholds(reference, rate)
    )
    local = local_rates(found.fires(trajectories), of, CLASSES, one_sign=one_sign)
    return found, local, float(class_scores(local, found, top, rate).mean())


def by_the_formula(
    reference: NDArray[np.float64],
    labels: NDArray[np.int64],
    along: NDArray[np.float64],
    of: NDArray[np.int64],
    top: int,
) -> float:
    """The score of class after class and unit after unit, without a tie."""
    scores = np.zeros((CLASSES, reference.shape[1]))
    for unit in range(reference.shape[1]):
        tried = {}
        for sign in (1, -1):
            values = np.sort(sign * reference[:, unit])
            threshold = values[len(values) - len(values) // CLASSES - 1]
            fires = sign * reference[:, unit] > threshold
            tried[sign] = max(fires[labels == y].mean() for y in range(CLASSES)), threshold
        sign = 1 if tried[1][0] >= tried[-1][0] else -1
        fires = sign * along[:, :, unit] > tried[sign][1]
        for y in range(CLASSES):
            scores[y, unit] = np.mean([trajectory.mean() for trajectory in fires[of == y]]) / (1 / CLASSES)
    return float(100 / CLASSES * np.mean([np.sort(of_y)[::-1][:top].mean() for of_y in scores]))


def test_the_score_is_that_of_the_formula_in_float64() -> None:
    rng = np.random.default_rng(0)
    reference, along = rng.standard_normal((80, 12)), rng.standard_normal((20, 5, 12))
    labels, of = of_class(20), of_class(5)
    reference[:, 0] -= 2 * (labels == 1).numpy()  # a unit that knows a class by a low value
    along[:, :, 0] -= 2 * (of == 1).numpy()[:, None]
    found, _, score = judged(torch.from_numpy(reference).float(), labels, torch.from_numpy(along).float(), of, 3)
    as_seen = [torch.from_numpy(v).float().double().numpy() for v in (reference, along)]
    assert score == pytest.approx(by_the_formula(as_seen[0], labels.numpy(), as_seen[1], of.numpy(), 3), rel=1e-12)
    assert found.signs is not None
    assert int(found.signs[0]) == -1


@pytest.mark.parametrize(("one_sign", "expected"), [(True, 100.0), (False, 98.0)])
def test_units_that_fire_for_one_class_alone_are_at_the_top(one_sign: bool, expected: float) -> None:
    rng = np.random.default_rng(1)
    of = of_class(10)
    knows = torch.nn.functional.one_hot(of, CLASSES)[:, None, :] + torch.from_numpy(rng.random((40, 5, 1)) * 0.01)
    along = knows.float()
    labels = of.repeat_interleave(5)
    _, local, score = judged(along.flatten(0, 1), labels, along, of, 1, one_sign=one_sign)
    assert score == pytest.approx(expected)
    if one_sign:  # I_y is 4 for its class and 0 for others
        assert torch.equal(local / 0.25, 4.0 * torch.eye(CLASSES, dtype=torch.float64))


@pytest.mark.parametrize("one_sign", [True, False])
def test_a_constant_unit_never_fires(one_sign: bool) -> None:
    found, local, score = judged(
        torch.ones(40, 1), of_class(10), torch.ones(8, 5, 1), of_class(2), 1, one_sign=one_sign
    )
    assert (score, int(found.fired), float(local.sum())) == (0.0, 0, 0.0)


def test_ties_of_a_relu_lower_a_score_and_never_raise_it() -> None:
    reference = torch.zeros(40, 2)
    reference[:2, 0] = 1.0  # fires for 2 of 40 images, all of class 0, and not for 10
    reference[:10, 1] = 1.0
    along = reference.view(8, 5, 2)
    found, local, _ = judged(reference, of_class(10), along, of_class(2), 1)
    assert found.signs is not None
    assert found.signs.tolist() == [1, 1]
    assert found.fired.tolist() == [2, 10]
    assert (local / found.rates)[0].tolist() == pytest.approx([0.8, 4.0])


def test_noise_scores_its_rate_by_the_formula_and_twice_as_much_by_the_code() -> None:
    rng = np.random.default_rng(0)
    of, labels = of_class(10), of_class(50)
    along = torch.from_numpy(rng.random((40, 5, 2048))).float()
    _, _, every = judged(along.flatten(0, 1), labels, along, of, 2048)
    assert every == pytest.approx(25.0)  # all units fire for a quarter of the images
    _, _, code = judged(along.flatten(0, 1), labels, along, of, 10, one_sign=False)
    assert code == pytest.approx(52.4, abs=1.5)


def test_an_invariant_feature_loses_all_when_its_images_are_exchanged() -> None:
    of, labels = of_class(200), of_class(100)
    knows = torch.nn.functional.one_hot(of, CLASSES).float()[:, None, :].expand(-1, 5, -1)
    reference = torch.nn.functional.one_hot(labels, CLASSES).float()
    found, _, score = judged(reference, labels, knows, of, 1)
    rng = np.random.default_rng(0)
    orders = torch.from_numpy(np.stack([rng.permutation(800) for _ in range(5)]))
    shuffled = local_rates(exchanged(found.fires(knows), orders), of, CLASSES, one_sign=True)
    assert score == 100.0
    # 25 but for the best of 4 units: each has a deviation of sqrt(.25 .75 / 1000), 1.4 %.
    assert float(class_scores(shuffled, found, 1, Fraction(1, CLASSES)).mean()) == pytest.approx(26.0, abs=3)
