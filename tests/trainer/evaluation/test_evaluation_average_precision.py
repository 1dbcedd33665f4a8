"""Average precision: cases worked by hand, its laws, and two evaluators that are not ours."""

from __future__ import annotations

import contextlib
import io
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from trainer.evaluation.average_precision import Cuts, all_points, cuts, eleven_point


def ranked(letters: str) -> Cuts:
    """A list in its order: P a positive, n a negative; letters in brackets share a score."""
    scores, positive, score, tied = [], [], 0.0, False
    for letter in letters:
        tied = {"(": True, ")": False}.get(letter, tied)
        score -= letter == "(" or (letter in "Pn" and not tied)
        if letter in "Pn":
            scores.append(score)
            positive.append(letter == "P")
    found = cuts(np.array(scores), np.array(positive))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("letters", "eleven", "area"),
    [
        ("P", 1, 1),
        ("PPnn", 1, 1),
        ("nnP", Fraction(1, 3), Fraction(1, 3)),
        # Precision 1 up to recall 1/2, then 2/3: levels 0..0.5 and 0.6..1.
        ("PnP", Fraction(6 + 5 * Fraction(2, 3)) / 11, Fraction(1, 2) + Fraction(1, 3)),
        # The envelope lifts the cut at recall 1/3 (precision 1/2) to the 3/4 of the end.
        ("nPPP", Fraction(3, 4), Fraction(3, 4)),
        # Recall 1/3, 2/3, 1 at precision 1, 2/4, 3/5: lifted to 1, 3/5, 3/5. Levels 0..0.3 are below 1/3.
        ("PnnPP", Fraction(4 + 7 * Fraction(3, 5)) / 11, Fraction(1, 3) + Fraction(2, 3) * Fraction(3, 5)),
        # All of one score: one cut, whatever the order.
        ("(PnnP)", Fraction(1, 2), Fraction(1, 2)),
        ("(nnPP)", Fraction(1, 2), Fraction(1, 2)),
        ("P(nP)", Fraction(6 + 5 * Fraction(2, 3)) / 11, Fraction(1, 2) + Fraction(1, 3)),
    ],
)
def test_cases_worked_by_hand(letters: str, eleven: Fraction, area: Fraction) -> None:
    assert eleven_point(ranked(letters)) == pytest.approx(float(eleven), abs=1e-12)
    assert all_points(ranked(letters)) == pytest.approx(float(area), abs=1e-12)


def test_a_recall_of_three_tenths_reaches_the_level_of_three_tenths() -> None:
    """0.3 as three times 0.1 is more than 3 / 10 in binary: the level would be missed."""
    found = ranked("PPP" + "n" * 90 + "PPPPPPP")
    assert eleven_point(found) == pytest.approx((4 + 7 * 0.1) / 11, abs=1e-12)


def test_positives_without_a_score_are_missed() -> None:
    """A detector that finds 2 of 4: no cut has a recall above 1/2."""
    found = Cuts(np.array([1, 2]), np.array([1, 2]), positives=4)
    assert (eleven_point(found), all_points(found)) == (pytest.approx(6 / 11), 0.5)
    nothing = Cuts(np.array([], np.int64), np.array([], np.int64), positives=4)
    assert (eleven_point(nothing), all_points(nothing)) == (0.0, 0.0)


def test_without_a_positive_nothing_is_defined() -> None:
    assert cuts(np.array([1.0, 2.0]), np.array([False, False])) is None
    with pytest.raises(AssertionError, match="not defined"):
        Cuts(np.array([0]), np.array([1]), positives=0)


LISTS = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=40).filter(
    lambda items: any(positive for _, positive in items)
)


def arrays(items: list[tuple[int, bool]]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    return np.array([s / 8 for s, _ in items]), np.array([p for _, p in items])


def both(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> tuple[float, float]:
    found = cuts(scores, positive)
    assert found is not None
    return eleven_point(found), all_points(found)


@given(LISTS)
def test_the_two_bound_each_other_and_the_one_without_interpolation(items: list[tuple[int, bool]]) -> None:
    scores, positive = arrays(items)
    found = cuts(scores, positive)
    assert found is not None
    eleven, area = eleven_point(found), all_points(found)
    first, last = found.envelope()[0], found.envelope()[-1]
    assert (11 * eleven - first) / 10 - 1e-12 <= area <= (11 * eleven - last) / 10 + 1e-12
    plain = average_precision_score(positive, scores)
    assert plain <= area + 1e-12
    precision = found.found / found.items
    gained = np.diff(found.found, prepend=0) > 0
    if (precision[gained] == found.envelope()[gained]).all():
        assert plain == pytest.approx(area, abs=1e-12), "equal where no later cut is better"


@given(LISTS, st.integers(0, 2**32))
def test_neither_order_nor_scale_nor_a_shift_of_scores_matters(items: list[tuple[int, bool]], seed: int) -> None:
    scores, positive = arrays(items)
    order = np.random.default_rng(seed).permutation(len(items))
    assert both(scores[order], positive[order]) == both(scores, positive) == both(4 * scores - 3, positive)


@given(LISTS)
def test_it_agrees_with_coco_s_evaluator(items: list[tuple[int, bool]]) -> None:
    """Each item an image with one detection, and with an object at its place if it is a positive. COCO's evaluator
    reads the envelope at the recalls it is given: at 0, 0.1, ... for the one measure, at each positive for the other.
    Its cuts are after every item, so scores have to differ."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    positive = np.array([p for _, p in items])
    scores = np.argsort(np.argsort([s + i / 1000 for i, (s, _) in enumerate(items)])).astype(float)
    box = {"category_id": 1, "bbox": [0.0, 0.0, 10.0, 10.0]}
    truth = [{**box, "id": i + 1, "image_id": i, "area": 100.0, "iscrowd": 0} for i in range(len(items)) if positive[i]]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"images": [{"id": i} for i in range(len(items))], "annotations": truth,
                        "categories": [{"id": 1, "name": "c"}]}  # fmt: skip
        coco.createIndex()
        found = coco.loadRes([{**box, "image_id": i, "score": float(s)} for i, s in enumerate(scores)])

        def mean(recalls: list[float]) -> float:
            judge = COCOeval(coco, found, "bbox")
            judge.params.iouThrs, judge.params.recThrs = np.array([0.5]), np.array(recalls)
            judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
            judge.evaluate()
            judge.accumulate()
            return float(judge.eval["precision"][0, :, 0, 0, -1].mean())

        eleven, area = both(scores, positive)
        n = int(positive.sum())
        # A hair below each level: the evaluator compares quotients in binary.
        assert mean([max(0.0, t / 10 - 1e-9) for t in range(11)]) == pytest.approx(eleven, abs=1e-9)
        assert mean([(i + 1) / n - 1e-9 for i in range(n)]) == pytest.approx(area, abs=1e-9)


def test_a_perfect_ranking_is_one_and_chance_is_the_share_of_positives() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(20_000) < 0.2
    assert both(positive.astype(float), positive) == (1.0, 1.0)
    eleven, area = both(rng.random(20_000), positive)
    assert math.isclose(area, 0.2, abs_tol=0.01)
    assert math.isclose(eleven, 0.2, abs_tol=0.1), "the first few items weigh a whole level"
