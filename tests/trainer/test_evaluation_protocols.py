"""kNN and linear evaluation against answers that are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.evaluation import knn
from trainer.evaluation.features import Features
from trainer.evaluation.knn import class_votes, nearest, run_knn
from trainer.evaluation.linear import MEAN_SQUARED_NORM, comparable, run_linear
from trainer.evaluation.scoring import top, top5, true_class_places
from trainer.evaluation.units import Stopped, Units
from trainer.journal import Journal, read_events
from trainer.outcome import BadSpec, Diverged
from trainer.runtime.context import Context
from trainer.runtime.stopping import StopRequests
from trainer.specs import KnnSpec, LinearSpec, parse_spec

CLASSES = 6


def alone(folder: Path) -> Context:
    """A rank that is alone, with a journal in `folder`."""
    device = torch.device("cpu")
    return Context(
        rank=0,
        world_size=1,
        device=device,
        threads=1,
        run_folder=folder,
        attempt_folder=folder,
        attempt=1,
        inputs={},
        journal=Journal(folder / "journal.jsonl"),
        stop=StopRequests(folder / "control.json", rank=0, device=device),
    )


def knn_spec(**fields: Any) -> KnnSpec:
    spec = parse_spec({"kind": "knn", "data": "digits", "backbone_from": {"pixels": True}, **fields})
    assert isinstance(spec, KnnSpec)
    return spec


def linear_spec(**fields: Any) -> LinearSpec:
    spec = parse_spec({"kind": "linear", "data": "digits", "backbone_from": {"pixels": True}, **fields})
    assert isinstance(spec, LinearSpec)
    return spec


def clusters(count: int, *, seed: int, spread: float, width: int = 12) -> Features:
    """Images of class c around a direction of its own; `spread` is the noise around it."""
    centres = torch.randn(CLASSES, width, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    return Features(centres[labels] + spread * torch.randn(count, width, generator=generator), labels)


def shuffled(features: Features, seed: int) -> Features:
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
    return Features(features.values, features.labels[order])


def judge(folder: Path, spec: KnnSpec | LinearSpec, train: Features, test: Features) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    context = alone(folder)
    units = Units(context)
    if isinstance(spec, KnnSpec):
        return run_knn(spec, train, test, classes=CLASSES, context=context, units=units)
    return run_linear(spec, train, test, classes=CLASSES, context=context, units=units)


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

    def turned(features: Features) -> Features:
        return Features(7.0 * features.values @ rotation, features.labels)

    straight = judge(tmp_path / "a", spec, train, test)["top1"]["last"]
    assert 40 < straight < 99, "a case that is neither trivial nor hopeless"
    assert judge(tmp_path / "b", spec, turned(train), turned(test))["top1"]["last"] == pytest.approx(straight, abs=0.4)


def test_the_linear_result_does_not_depend_on_the_origin_of_the_features(tmp_path: Path) -> None:
    train, test = clusters(600, seed=1, spread=1.0), clusters(300, seed=2, spread=1.0)
    moved = [Features(f.values + 20.0, f.labels) for f in (train, test)]
    spec = linear_spec(epochs=10)
    straight = judge(tmp_path / "a", spec, train, test)["top1"]["last"]
    assert judge(tmp_path / "b", spec, *moved)["top1"]["last"] == pytest.approx(straight, abs=0.4)


def test_knn_worked_by_hand() -> None:
    # Directions at 0, 10, 20 and 90 degrees of a query at 0: the nearest is class 1, the next two are class 0.
    angles = np.radians([0.0, 10.0, 20.0, 90.0])
    train = Features(
        torch.tensor(np.stack([3 * np.cos(angles), 3 * np.sin(angles)], axis=1), dtype=torch.float32),
        torch.tensor([1, 0, 0, 2]),
    )
    query = torch.tensor([[5.0, 0.0]])

    def winner(k: int, temperature: float) -> int:
        (votes,) = class_votes(train, query, k=k, temperature=temperature, classes=3, rows=8)
        return int(votes.argmax())

    assert winner(1, 0.07) == 1
    assert winner(3, 0.07) == 0, "exp((cos 10 - 1) / T) + exp((cos 20 - 1) / T) = 0.80 + 0.42 > 1"
    assert winner(3, 0.02) == 1, "0.47 + 0.05 < 1: a sharp vote follows the nearest"


def plain_knn(train: Features, test: Features, k: int, temperature: float, classes: int) -> np.ndarray:
    """Votes by loops over images: exp(s / T) for each of the k most similar training images, lower index first."""
    bank, queries = (f.values.double().numpy() for f in (train, test))
    bank = bank / np.linalg.norm(bank, axis=1, keepdims=True)
    votes = np.zeros((len(queries), classes))
    for row, query in enumerate(queries / np.linalg.norm(queries, axis=1, keepdims=True)):
        similarities = bank @ query
        for column in np.argsort(-similarities, kind="stable")[:k]:
            votes[row, train.labels[column]] += np.exp(similarities[column] / temperature)
    return votes


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    k=st.integers(1, 40),
    temperature=st.sampled_from([0.05, 0.07, 0.5]),
    rows=st.integers(1, 20),
)
def test_knn_equals_the_plain_statement(seed: int, k: int, temperature: float, rows: int) -> None:
    train, test = clusters(40, seed=seed, spread=1.0), clusters(13, seed=seed + 1, spread=1.0)
    blocks = list(class_votes(train, test.values, k=k, temperature=temperature, classes=CLASSES, rows=rows))
    assert max(len(block) for block in blocks) <= rows
    ours, plain = torch.cat(blocks).numpy(), plain_knn(train, test, k, temperature, CLASSES)
    share = plain / plain.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ours / ours.sum(axis=1, keepdims=True), share, atol=1e-4)
    places = (plain > plain[np.arange(13), test.labels][:, None]).sum(axis=1)
    ours_places = true_class_places(torch.from_numpy(ours), test.labels).numpy()
    settled = np.sort(plain, axis=1)[:, 1:].min(axis=1) > 0
    assert (ours_places[settled] == places[settled]).all()


def test_a_very_sharp_vote_does_not_overflow() -> None:
    train, test = clusters(60, seed=1, spread=0.5), clusters(30, seed=2, spread=0.5)
    (sharp,) = class_votes(train, test.values, k=20, temperature=1e-6, classes=CLASSES, rows=64)
    (first,) = class_votes(train, test.values, k=1, temperature=1.0, classes=CLASSES, rows=64)
    assert sharp.isfinite().all()
    assert torch.equal(sharp.argmax(dim=1), first.argmax(dim=1))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=9, max_size=9), min_size=1, max_size=4), st.integers(1, 9))
def test_nearest_is_exact_and_ties_go_to_the_lower_index(rows: list[list[int]], k: int) -> None:
    found = nearest(torch.tensor(rows, dtype=torch.float32), k)
    for row, columns in zip(rows, found.tolist(), strict=True):
        assert columns == sorted(sorted(range(9), key=lambda column: (-row[column], column))[:k])


def test_a_tie_between_classes_is_won_by_the_lower_number_and_a_class_without_votes_never(tmp_path: Path) -> None:
    one = torch.ones(4, 2)
    train = Features(one, torch.tensor([5, 5, 1, 1]))
    test = Features(one, torch.tensor([1, 5, 0, 2]))
    result = judge(tmp_path, knn_spec(k=4), train, test)
    assert result["top1"]["last"] == 25.0, "class 1 wins the tie with class 5"
    assert result["top5"]["last"] == 50.0, "classes 0 and 2 have no neighbour, so they are not among the first five"


def test_blocks_bound_the_memory_and_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = clusters(600, seed=1, spread=1.0), clusters(301, seed=2, spread=1.0)
    whole = judge(tmp_path / "a", knn_spec(), train, test)
    monkeypatch.setattr(knn, "BLOCK_VALUES", 7 * 600)
    assert judge(tmp_path / "b", knn_spec(), train, test) == whole
    progress = [e for e in read_events(tmp_path / "b" / "journal.jsonl") if e.kind == "progress"]
    assert progress[0].data["steps"] == 43, "301 queries in blocks of 7"


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
    constant = Features(torch.ones(3, 12), train.labels[:3])
    assert comparable(constant, test)[0].values.eq(0).all()


def test_the_linear_protocol_nears_the_best_linear_classifier(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    train, test = clusters(600, seed=1, spread=1.0), clusters(600, seed=2, spread=1.0)
    best = LogisticRegression(C=1.0, max_iter=2000).fit(train.values.numpy(), train.labels.numpy())
    expected = 100 * best.score(test.values.numpy(), test.labels.numpy())
    assert judge(tmp_path, linear_spec(), train, test)["top1"]["last"] > expected - 1.5


def test_the_linear_journal_has_every_epoch_and_the_result_names_last_and_best(tmp_path: Path) -> None:
    train, test = clusters(300, seed=1, spread=1.5), clusters(120, seed=2, spread=1.5)
    result = judge(tmp_path / "a", linear_spec(epochs=7), train, test)
    events = list(read_events(tmp_path / "a" / "journal.jsonl"))
    points = {e.step: e.data["values"] for e in events if e.kind == "metrics"}
    assert list(points) == [1, 2, 3, 4, 5, 6, 7]
    assert all(set(p) == {"linear_loss", "linear_top1", "linear_top5"} for p in points.values())
    assert points[7]["linear_loss"] < points[1]["linear_loss"]
    assert result["top1"] == {"last": points[7]["linear_top1"], "best": max(p["linear_top1"] for p in points.values())}
    first_best = min(s for s, p in points.items() if p["linear_top1"] == result["top1"]["best"])
    assert result["best_epoch"] == first_best
    assert result["top5"]["best"] == points[first_best]["linear_top5"]
    assert result["protocol"] == "linear-cached-features/1"
    assert any(e.kind == "progress" and e.data["phase"] == "classifier" for e in events)

    again = judge(tmp_path / "b", linear_spec(epochs=7), train, test)
    assert again == result, "a restart does the same work again, to the same result"
    other = list(read_events(tmp_path / "b" / "journal.jsonl"))
    assert {e.step: e.data["values"] for e in other if e.kind == "metrics"} == points

    judge(tmp_path / "c", linear_spec(epochs=7, seed=1), train, test)
    other = list(read_events(tmp_path / "c" / "journal.jsonl"))
    losses = [e.data["values"]["linear_loss"] for e in other if e.kind == "metrics"]
    assert losses != [p["linear_loss"] for p in points.values()], "the seed orders the images"


def test_a_rate_without_bound_diverges_with_the_remedy(tmp_path: Path) -> None:
    train = clusters(300, seed=1, spread=1.0)
    with pytest.raises(Diverged, match="lower learning_rate"):
        judge(tmp_path, linear_spec(learning_rate=1e38), train, train)


def test_fewer_images_than_a_batch_still_train(tmp_path: Path) -> None:
    train = clusters(60, seed=1, spread=0.05)
    assert judge(tmp_path, linear_spec(epochs=30, head_batch_size=256), train, train)["top1"]["last"] == 100.0


def test_a_stop_request_ends_between_epochs(tmp_path: Path) -> None:
    train = clusters(300, seed=1, spread=1.0)
    (tmp_path / "control.json").write_text(json.dumps({"stop": "pause"}))
    with pytest.raises(Stopped):
        judge(tmp_path, linear_spec(epochs=1000), train, train)
    assert len([e for e in read_events(tmp_path / "journal.jsonl") if e.kind == "metrics"]) == 1
