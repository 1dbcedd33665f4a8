"""kNN and linear evaluation against answers that are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from barlow_lab.journal import JournalEvent
from barlow_lab.specs import KnnSpec, LinearSpec, parse_spec
from trainer.evaluation import run_evaluation
from trainer.evaluation.features import Features
from trainer.evaluation.fitting import Scores
from trainer.evaluation.knn import class_votes, nearest, true_places
from trainer.evaluation.linear_cached import MEAN_SQUARED_NORM, Labelled, Training, classify, comparable
from trainer.evaluation.scoring import scores_of, top, top5, true_class_places
from trainer.failures import BadSpec, Diverged
from trainer.runtime.context import Context
from trainer.runtime.units import Units

CLASSES = 6
DIGITS = {"data": {"name": "digits", "limit": 203}, "images": {"size": 8, "resize": 8}}


def knn_spec(**fields: Any) -> KnnSpec:
    spec = parse_spec({"kind": "knn", **DIGITS, "backbone_from": {"pixels": True}, **fields})
    assert isinstance(spec, KnnSpec)
    return spec


def linear_spec(**fields: Any) -> LinearSpec:
    spec = parse_spec(
        {"kind": "linear", "protocol": "cached-features", **DIGITS, "backbone_from": {"pixels": True}, **fields}
    )
    assert isinstance(spec, LinearSpec)
    return spec


def clusters(count: int, *, seed: int, spread: float, width: int = 12) -> Labelled:
    """Images of class c around a direction of its own; `spread` is the noise around it."""
    centres = torch.randn(CLASSES, width, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    return Labelled(centres[labels] + spread * torch.randn(count, width, generator=generator), labels)


def shuffled(images: Labelled, seed: int) -> Labelled:
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return Labelled(images.values, images.labels[order])


def places(
    train: Labelled, test: Labelled, *, k: int, temperature: float, context: Context, classes: int = CLASSES
) -> torch.Tensor:
    """Of the true classes among the neighbours' votes."""
    bank, queries = (Features(i.values.clone(), torch.arange(len(i)), len(i)) for i in (train, test))
    return true_places(
        bank, train.labels, queries, test.labels,
        k=k, temperature=temperature, classes=classes, phase="neighbours", context=context, units=Units(context),
    )  # fmt: skip


def judge(folder: Path, spec: KnnSpec | LinearSpec, train: Labelled, test: Labelled) -> dict[str, Any]:
    """The scores of a result."""
    context = runs.context(folder)
    scores = Scores("top1")
    if isinstance(spec, KnnSpec):
        found = places(train, test, k=spec.k, temperature=spec.temperature, context=context)
        scores.take(0, scores_of(found, CLASSES))
    else:
        for epoch in classify(Training.of(spec), train, test, classes=CLASSES, phase="p", units=Units(context)):
            scores.take(epoch.number, epoch.scores)
    judged: dict[str, Any] = scores.result()["scores"]
    return judged


def points(folder: Path) -> dict[int | None, dict[str, float]]:
    """The metrics of a journal, by step."""
    return {event.step: event.data["values"] for event in runs.events(folder, kind="metrics")}


def progress(folder: Path) -> list[JournalEvent]:
    return runs.events(folder, kind="progress")


BOTH = pytest.mark.parametrize("spec", [knn_spec(k=10), linear_spec(epochs=30)], ids=["knn", "linear"])


@BOTH
def test_perfect_features_are_classified_perfectly(tmp_path: Path, spec: KnnSpec | LinearSpec) -> None:
    train, test = clusters(600, seed=1, spread=0.05), clusters(123, seed=2, spread=0.05)
    result = judge(tmp_path, spec, train, test)
    assert result["top1"] == {"last": 100.0, "best": 100.0}
    assert result["top5"] == {"last": 100.0, "best": 100.0}


@BOTH
def test_shuffled_labels_are_classified_by_chance(tmp_path: Path, spec: KnnSpec | LinearSpec) -> None:
    train, test = clusters(600, seed=1, spread=1.0), clusters(600, seed=2, spread=1.0)
    result = judge(tmp_path, spec, shuffled(train, 3), shuffled(test, 4))
    chance, deviation = 100 / CLASSES, 100 * (5 / 36 / 600) ** 0.5
    assert abs(result["top1"]["last"] - chance) < 4 * deviation
    assert result["top5"]["last"] < 95


@BOTH
def test_a_rotation_and_a_scale_of_the_features_change_nothing(tmp_path: Path, spec: KnnSpec | LinearSpec) -> None:
    train, test = clusters(600, seed=1, spread=1.0), clusters(300, seed=2, spread=1.0)
    rotation = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(5)))[0]

    def turned(images: Labelled) -> Labelled:
        return Labelled(7.0 * images.values @ rotation, images.labels)

    straight = judge(tmp_path / "a", spec, train, test)["top1"]["last"]
    assert 40 < straight < 99, "a case that is neither trivial nor hopeless"
    assert judge(tmp_path / "b", spec, turned(train), turned(test))["top1"]["last"] == pytest.approx(straight, abs=0.4)


def test_the_linear_result_does_not_depend_on_the_origin_of_the_features(tmp_path: Path) -> None:
    train, test = clusters(600, seed=1, spread=1.0), clusters(300, seed=2, spread=1.0)
    moved = [Labelled(i.values + 20.0, i.labels) for i in (train, test)]
    spec = linear_spec(epochs=10)
    straight = judge(tmp_path / "a", spec, train, test)["top1"]["last"]
    assert judge(tmp_path / "b", spec, *moved)["top1"]["last"] == pytest.approx(straight, abs=0.4)


def test_knn_worked_by_hand(tmp_path: Path) -> None:
    # Directions at 0, 10, 20 and 90 degrees of a query at 0: the nearest is class 1, the next two are class 0.
    angles = np.radians([0.0, 10.0, 20.0, 90.0])
    train = Labelled(
        torch.tensor(np.stack([3 * np.cos(angles), 3 * np.sin(angles)], axis=1), dtype=torch.float32),
        torch.tensor([1, 0, 0, 2]),
    )
    context = runs.context(tmp_path)

    def winner(k: int, temperature: float) -> int:
        each = [
            places(train, Labelled(torch.tensor([[5.0, 0.0]]), torch.tensor([label])),
                   k=k, temperature=temperature, classes=3, context=context).item()
            for label in range(3)
        ]  # fmt: skip
        return each.index(0)

    assert winner(1, 0.07) == 1
    assert winner(3, 0.07) == 0, "exp((cos 10 - 1) / T) + exp((cos 20 - 1) / T) = 0.80 + 0.42 > 1"
    assert winner(3, 0.02) == 1, "0.47 + 0.05 < 1: a sharp vote follows the nearest"


def test_a_very_sharp_vote_does_not_overflow(tmp_path: Path) -> None:
    train, test = clusters(60, seed=1, spread=1.5), clusters(30, seed=2, spread=1.5)
    context = runs.context(tmp_path)
    sharp, first = (
        places(train, test, k=k, temperature=temperature, context=context) for k, temperature in ((20, 1e-6), (1, 1.0))
    )
    assert 0 < (first > 0).sum() < 30, "a case that is neither trivial nor hopeless"
    assert torch.equal(sharp == 0, first == 0)
    votes = class_votes(torch.tensor([[1.0, -1.0]]).double(), torch.tensor([[0, 1]]), temperature=1e-300, classes=2)
    assert votes.tolist() == [[1.0, 0.0]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=9, max_size=9), min_size=1, max_size=4), st.integers(1, 9))
def test_nearest_is_exact_and_ties_go_to_the_lower_index(rows: list[list[int]], k: int) -> None:
    found = nearest(torch.tensor(rows, dtype=torch.float32), k)
    for row, columns in zip(rows, found.tolist(), strict=True):
        assert columns == sorted(sorted(range(9), key=lambda column: (-row[column], column))[:k])


def test_the_lower_class_wins_a_tie_and_a_class_without_votes_never_does(tmp_path: Path) -> None:
    one = torch.ones(4, 2)
    train = Labelled(one, torch.tensor([5, 5, 1, 1]))
    test = Labelled(one, torch.tensor([1, 5, 0, 2]))
    result = judge(tmp_path, knn_spec(k=4), train, test)
    assert result["top1"]["last"] == 25.0, "class 1 wins the tie with class 5"
    assert result["top5"]["last"] == 50.0, "classes 0 and 2 have no neighbour, so they are not among the first five"


def test_more_neighbours_than_images_is_a_bad_spec(tmp_path: Path) -> None:
    few = clusters(12, seed=1, spread=0.1)
    with pytest.raises(BadSpec, match="k 13 is above the 12 training images; use at most 12"):
        judge(tmp_path, knn_spec(k=13), few, few)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0, float("nan")]), min_size=7, max_size=7), min_size=1, max_size=5),
    st.integers(0, 6),
)
def test_the_place_of_the_true_class_is_that_of_a_stable_sort(rows: list[list[float]], label: int) -> None:
    places = true_class_places(torch.tensor(rows), torch.full((len(rows),), label))
    for row, place in zip(rows, places.tolist(), strict=True):
        known = [-np.inf if np.isnan(x) else x for x in row]
        assert place == sorted(range(7), key=lambda c: (-known[c], c)).index(label)


def test_top_k_is_in_percent_and_top_5_needs_5_classes() -> None:
    places = torch.tensor([0, 0, 1, 4, 5, 0, 9, 2])
    assert (top(places, 1), top(places, 5), top5(places, 5)) == (37.5, 75.0, 75.0)
    assert top5(places, 4) is None


def test_the_linear_protocol_centres_and_scales_by_the_training_split_alone() -> None:
    train, test = clusters(100, seed=1, spread=1.0), clusters(50, seed=2, spread=3.0)
    ours, theirs = comparable(train, test)
    np.testing.assert_allclose(ours.values.mean(dim=0), 0, atol=1e-5)
    assert float(ours.values.square().sum(dim=1).mean()) == pytest.approx(MEAN_SQUARED_NORM, rel=1e-5)
    difference = (test.values[:1] - train.values[:1]) / (theirs.values[:1] - ours.values[:1])
    np.testing.assert_allclose(difference, difference[0, 0].expand(1, 12), rtol=1e-3)
    constant = Labelled(torch.ones(3, 12), train.labels[:3])
    assert comparable(constant, test)[0].values.eq(0).all()


def test_centring_takes_the_memory_of_the_features_once_more_and_no_copy_in_float64() -> None:
    train = Labelled(torch.ones(20_000, 50), torch.zeros(20_000, dtype=torch.int64))
    with torch.profiler.profile(profile_memory=True) as profiled:
        comparable(train, Labelled(train.values[:1], train.labels[:1]))
    largest = max(event.self_cpu_memory_usage for event in profiled.events())
    assert largest == train.values.nbytes


def test_the_linear_protocol_nears_the_best_linear_classifier(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    train, test = clusters(600, seed=1, spread=1.0), clusters(600, seed=2, spread=1.0)
    best = LogisticRegression(C=1.0, max_iter=2000).fit(train.values.numpy(), train.labels.numpy())
    expected = 100 * best.score(test.values.numpy(), test.labels.numpy())
    assert judge(tmp_path, linear_spec(), train, test)["top1"]["last"] > expected - 1.5


def test_the_linear_journal_has_every_epoch_and_the_result_names_last_and_best(tmp_path: Path) -> None:
    spec = linear_spec(epochs=7, learning_rate=0.4)
    result = run_evaluation(spec, runs.context(tmp_path / "a"))
    assert result is not None
    found = points(tmp_path / "a")
    assert list(found) == [1, 2, 3, 4, 5, 6, 7]
    assert all(set(p) == {"linear_loss", "linear_top1", "linear_top5"} for p in found.values())
    assert found[7]["linear_loss"] < found[1]["linear_loss"]
    best = max(p["linear_top1"] for p in found.values())
    first_best = min(s for s, p in found.items() if p["linear_top1"] == best and s is not None)
    assert result["headline"] == "top1"
    assert result["scores"] == {
        "top1": {"last": found[7]["linear_top1"], "best": best},
        "top5": {"last": found[7]["linear_top5"], "best": found[first_best]["linear_top5"]},
    }
    assert (result["best_step"], result["epochs"]) == (first_best, 7)
    assert result["protocol"] == "linear-cached-features/1"
    assert set(result["departures"]) == {"epochs", "learning_rate"}
    (started,) = runs.events(tmp_path / "a", kind="started")
    assert started.data["resume_step"] == 0
    assert any(e.data["phase"] == "classifier" and e.data["epochs"] == 7 for e in progress(tmp_path / "a"))

    assert run_evaluation(spec, runs.context(tmp_path / "b")) == result, "a restart does the same work again"
    assert points(tmp_path / "b") == found

    run_evaluation(linear_spec(epochs=7, learning_rate=0.4, seed=1), runs.context(tmp_path / "c"))
    losses = [p["linear_loss"] for p in points(tmp_path / "c").values()]
    assert losses != [p["linear_loss"] for p in found.values()], "the seed orders the images"


def test_the_rate_of_the_linear_protocol_is_its_schedule_s(tmp_path: Path) -> None:
    train, test = clusters(256, seed=1, spread=1.0), clusters(120, seed=2, spread=1.0)
    steps = linear_spec(epochs=4, batch_size=64, schedule={"shape": "steps", "after": [0.25], "factor": 1e-9})

    def losses(spec: LinearSpec, folder: Path) -> list[float]:
        units = Units(runs.context(folder))
        return [e.loss for e in classify(Training.of(spec), train, test, classes=CLASSES, phase="p", units=units)]

    stepped, cosine = losses(steps, tmp_path / "a"), losses(linear_spec(epochs=4, batch_size=64), tmp_path / "b")
    assert stepped[0] == pytest.approx(cosine[0], rel=0.2)
    assert stepped[3] == pytest.approx(stepped[1], rel=1e-5), "after the drop the weights stand, in any order of images"
    assert cosine[3] < 0.99 * cosine[1]


def test_a_rate_without_bound_diverges_with_the_remedy(tmp_path: Path) -> None:
    train = clusters(300, seed=1, spread=1.0)
    with pytest.raises(Diverged, match="lower learning_rate"):
        judge(tmp_path, linear_spec(learning_rate=1e38), train, train)


def test_fewer_images_than_a_batch_still_train(tmp_path: Path) -> None:
    train = clusters(60, seed=1, spread=0.05)
    assert judge(tmp_path, linear_spec(epochs=30, batch_size=256), train, train)["top1"]["last"] == 100.0


def test_a_stop_request_ends_between_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = runs.context(tmp_path)
    asked = context.stop.requested

    def requested(unit: int) -> bool:
        if points(tmp_path):
            (context.attempt_folder / "control.json").write_text(json.dumps({"stop": "pause"}))
        return asked(unit)

    monkeypatch.setattr(context.stop, "requested", requested)
    monkeypatch.setattr("trainer.runtime.stopping.AGREE_SECONDS", 0.0)
    assert run_evaluation(linear_spec(epochs=1000), context) is None
    assert list(points(tmp_path)) == [1]
