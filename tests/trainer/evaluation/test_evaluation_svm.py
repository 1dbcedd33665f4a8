"""Support vector machines: against scikit-learn's own cross-validation, and what does not count does not."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import PredefinedSplit, cross_val_score
from sklearn.svm import LinearSVC
from svm_cases import CLASSES, COSTS, objects, svm_spec

from trainer.data.keyed import Purpose, bits
from trainer.evaluation import run_evaluation, svm
from trainer.evaluation.average_precision import all_points, cuts, eleven_point
from trainer.evaluation.svm import LabelledFeatures, Machine, folds_of, train_machines
from trainer.runtime.context import Context
from trainer.runtime.units import Units


def machines(folder: Path, train: LabelledFeatures, test: LabelledFeatures, **fields: Any) -> list[Machine]:
    context = runs.context(folder)
    return train_machines(svm_spec(**fields), train, test, context, Units(context))


def with_presence(images: LabelledFeatures, presence: NDArray[np.int8]) -> LabelledFeatures:
    return LabelledFeatures(images.values, presence)


def same(one: Machine, other: Machine) -> bool:
    return np.array_equal(
        *(np.array([m.cost, m.eleven_point, m.all_points, m.unfinished]) for m in (one, other)), equal_nan=True
    )


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_each_machine_is_the_one_of_scikit_learn_s_cross_validation(tmp_path: Path) -> None:
    train, test = objects(150, seed=1, spread=0.8), objects(120, seed=2, spread=0.8)
    found = machines(tmp_path, train, test, seed=5)
    costs = set()
    for number, machine in enumerate(found):
        positive = train.presence[:, number] == 1
        folds = PredefinedSplit(folds_of(positive, 3, seed=5, number=number))
        random = int(bits(Purpose.SVM, 5, number).random_raw() % 2**31)

        def fresh(cost: float, random: int = random) -> LinearSVC:
            return LinearSVC(C=cost, class_weight={True: 2, False: 1}, max_iter=2000, random_state=random)

        precision = [
            cross_val_score(fresh(c), train.values, positive, cv=folds, scoring="average_precision").mean()
            for c in COSTS
        ]
        best = COSTS[int(np.argmax(precision))]
        scores = fresh(best).fit(train.values, positive).decision_function(test.values)
        ranked = cuts(scores, test.presence[:, number] == 1)
        assert ranked is not None
        assert machine == Machine(best, eleven_point(ranked), all_points(ranked), machine.unfinished)
        assert 0.4 < machine.all_points < 0.99, "a case that is neither hopeless nor trivial"
        costs.add(best)
    assert len(costs) > 1, "classes choose their own"


def test_perfect_features_are_ranked_perfectly_at_the_lowest_of_equal_costs(tmp_path: Path) -> None:
    train, test = objects(150, seed=1, spread=1e-3), objects(120, seed=2, spread=1e-3)
    for images in (train, test):
        images.values[:] = 0
        images.values[:, :CLASSES] = images.presence
        images.values[:, CLASSES] = 1
    for machine in machines(tmp_path, train, test, costs=[100.0, 0.1, 1.0]):
        assert (machine.cost, machine.eleven_point, machine.all_points) == (0.1, pytest.approx(1), pytest.approx(1))


def test_shuffled_labels_are_ranked_by_chance(tmp_path: Path) -> None:
    train, test = objects(300, seed=1, spread=0.3), objects(600, seed=2, spread=0.3)
    rng = np.random.default_rng(3)
    train, test = (with_presence(i, rng.permutation(i.presence)) for i in (train, test))
    found = machines(tmp_path, train, test, costs=[0.1])
    assert abs(np.mean([machine.all_points for machine in found]) - 0.3) < 0.06


def test_images_that_do_not_count_for_a_class_change_nothing_of_it(tmp_path: Path) -> None:
    train, test = objects(120, seed=1, spread=0.8), objects(90, seed=2, spread=0.8)
    unknown = np.arange(120) % 5 == 0, np.arange(90) % 4 == 0
    less = [LabelledFeatures(i.values[~u], i.presence[~u]) for i, u in zip((train, test), unknown, strict=True)]
    for images, rows in zip((train, test), unknown, strict=True):
        images.presence[rows, 2] = -1
    marked, plain = machines(tmp_path / "a", train, test), machines(tmp_path / "b", *less)
    assert same(marked[2], plain[2])
    assert not any(same(marked[number], plain[number]) for number in (0, 1, 3))


def few_positives(count: int) -> tuple[LabelledFeatures, LabelledFeatures]:
    train, test = objects(60, seed=1, spread=0.1), objects(60, seed=2, spread=0.1)
    train.presence[:, 0] = 0
    train.presence[:count, 0] = 1
    return train, test


@pytest.mark.parametrize(("count", "folds"), [(3, 3), (2, 2), (1, 1)])
def test_few_positives_make_as_many_folds_and_a_single_one_the_lowest_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, folds: int
) -> None:
    train, test = few_positives(count)
    assert folds_of(train.presence[:, 0] == 1, 3, seed=0, number=0).max() == folds - 1
    machine, *_ = machines(tmp_path, train, test, costs=[1.0, 0.5, 2.0])
    assert math.isfinite(machine.all_points)
    assert machine.cost in ([1.0, 0.5, 2.0] if folds > 1 else [0.5])


@pytest.mark.parametrize("case", ["no positive to learn from", "no negative", "none to find"])
def test_a_class_that_cannot_be_judged_is_left_out(tmp_path: Path, case: str) -> None:
    train, test = few_positives(0 if case == "no positive to learn from" else 60 if case == "no negative" else 20)
    if case == "none to find":
        test.presence[:, 0] = np.where(np.arange(60) % 2, 0, -1)
    first, *others = machines(tmp_path, train, test)
    assert math.isnan(first.cost)
    assert math.isnan(first.eleven_point)
    assert math.isnan(first.all_points)
    assert all(math.isfinite(machine.all_points) for machine in others)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(2, 8), st.integers(0, 100))
def test_folds_share_out_both_kinds_evenly(positives: int, negatives: int, folds: int, seed: int) -> None:
    positive = np.random.default_rng(seed).permutation(np.arange(positives + negatives) < positives)
    found = folds_of(positive, folds, seed=seed, number=1)
    count = max(1, min(folds, positives, negatives))
    for kind in (positive, ~positive):
        each = np.bincount(found[kind], minlength=count)
        assert len(each) == count
        assert each.max() - each.min() <= 1
        assert each.min() > 0 or count == 1
    assert np.array_equal(found, folds_of(positive, folds, seed=seed, number=1))


def test_folds_are_drawn_by_seed_and_class() -> None:
    positive = np.arange(60) % 3 == 0
    drawn = {tuple(folds_of(positive, 3, seed=seed, number=number)) for seed in (0, 1) for number in (0, 1)}
    assert len(drawn) == 4


def test_trainings_that_do_not_converge_are_counted_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(svm, "MOST_ITERATIONS", 1)
    train, test = objects(60, seed=1, spread=0.8), objects(60, seed=2, spread=0.8)
    assert {machine.unfinished for machine in machines(tmp_path, train, test)} == {3 * 3 + 1}
    assert not [w for w in recwarn if issubclass(w.category, ConvergenceWarning)]


def test_one_long_training_tells_that_it_is_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = threading.Event()
    fit = svm.LinearSVC.fit

    def long_fit(*given: Any) -> Any:
        assert told.wait(30), "nothing is said while one machine is trained"
        return fit(*given)

    monkeypatch.setattr(svm.LinearSVC, "fit", long_fit)
    monkeypatch.setattr(svm, "TELL_SECONDS", 0.01)
    monkeypatch.setattr(Units, "working", lambda self, phase: told.set())
    assert len(machines(tmp_path, objects(30, seed=1, spread=0.1), objects(30, seed=2, spread=0.1))) == CLASSES


def run(folder: Path, **fields: Any) -> tuple[dict[str, Any] | None, Context]:
    context = runs.context(folder)
    return run_evaluation(svm_spec(**fields), context), context


def test_the_result_of_a_set_of_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.runtime.context.PROGRESS_SECONDS", 0.0)
    result, _ = run(tmp_path / "a")
    assert result is not None
    assert (result["protocol"], result["headline"]) == ("svm-voc07/1", "map_11_point")
    assert set(result["departures"]) == {"costs"}
    assert set(result["average_precision"]) == set(result["costs"]) == set(map(str, range(10)))
    for ours, each in (("map_11_point", "11_point"), ("map_all_points", "all_points")):
        mean = np.mean([precisions[each] for precisions in result["average_precision"].values()])
        assert result["scores"][ours] == {"last": pytest.approx(mean), "best": result["scores"][ours]["last"]}
        assert 80 < mean < 100
    assert set(result["costs"].values()) <= set(COSTS)
    assert (result["left_out"], result["folds"], result["data"]["train_images"]) == ([], 3, 203)
    json.dumps(result, allow_nan=False)
    (point,) = runs.events(tmp_path / "a", kind="metrics")
    assert point.step == 0
    assert point.data["values"] == {f"svm_{name}": both["last"] for name, both in result["scores"].items()}
    steps = [e.data["steps"] for e in runs.events(tmp_path / "a", kind="progress") if e.data["phase"] == svm.PHASE]
    assert steps.count(10 * 3) >= 10 * 3, "of every class and cost"
    assert run(tmp_path / "b")[0] == result


def test_a_set_with_objects_is_judged_by_what_is_in_each_image(tmp_path: Path) -> None:
    result, _ = run(tmp_path, data={"name": "scenes", "limit": 40}, images={"size": 16}, costs=[1.0])
    assert result is not None
    assert result["data"]["classes"] == len(result["average_precision"]) + len(result["left_out"])
    assert 0 < result["scores"]["map_all_points"]["last"] <= 100


def test_few_images_leave_classes_out_with_a_warning_and_none_at_all_is_bad_data(tmp_path: Path) -> None:
    result, _ = run(tmp_path / "a", data={"name": "digits", "limit": 5}, costs=[1.0])
    assert result is not None
    assert len(result["left_out"]) + len(result["costs"]) == 10
    assert result["left_out"]
    warned = [e.data for e in runs.events(tmp_path / "a", kind="warning") if "classes" in e.data]
    assert [w["classes"] for w in warned] == [result["left_out"]]
    with pytest.raises(ValueError, match="no class of 'digits' has a positive and a negative"):
        run(tmp_path / "b", data={"name": "digits", "limit": 1})


def test_asked_to_stop_it_stops_and_a_restart_finishes(tmp_path: Path) -> None:
    context = runs.context(tmp_path)
    (context.attempt_folder / "control.json").write_text('{"stop": "drain"}')
    assert run_evaluation(svm_spec(), context) is None
    assert context.stop.reason == "drain"
    assert not runs.events(tmp_path, kind="metrics")
