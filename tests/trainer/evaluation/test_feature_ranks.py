"""Evaluations on features, and probes, on real ranks: the same as on one, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import feature_laws
import pytest
import ranks
import runs
from knn_cases import plain_places

from trainer.evaluation import knn

LAWS = Path(feature_laws.__file__)

# Two ranks of whole evaluations are judged in every run by test_evaluation_runs; this takes half a minute.
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A folder for each number of ranks, with what each rank told."""
    out = {count: tmp_path_factory.mktemp(f"ranks-{count}") for count in (2, 3)}
    for count, folder in out.items():
        assert ranks.finish(ranks.start([LAWS, folder], count, folder)) == [0] * count, ranks.log(folder)
    return out


@pytest.fixture(scope="module")
def told(folders: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    alone = json.loads(json.dumps(feature_laws.all_laws(tmp_path_factory.mktemp("alone"), 0, 1)))
    everyone = {
        count: [json.loads((folder / f"{rank}.json").read_text()) for rank in range(count)]
        for count, folder in folders.items()
    }
    return {1: [alone], **everyone}


COUNTS = pytest.mark.parametrize("count", [1, 2, 3])


@COUNTS
def test_neighbours_are_exact_on_any_number_of_ranks(told: dict[int, list[dict[str, Any]]], count: int) -> None:
    expected = [plain_places(case) for case in feature_laws.cases()]
    for rank in told[count]:
        assert rank["places"] == rank["places in small blocks"] == expected


def test_the_search_keeps_within_its_memory_with_the_candidates_of_all_ranks(
    told: dict[int, list[dict[str, Any]]],
) -> None:
    stated = knn.PEAK_BYTES * feature_laws.PEAK_BLOCKS // knn.BLOCK_VALUES
    assert all(stated / 10 < rank["peak"] <= stated for rank in told[3])


@COUNTS
def test_each_rank_keeps_the_features_of_its_own_share(told: dict[int, list[dict[str, Any]]], count: int) -> None:
    shares = [rank["share"] for rank in told[count]]
    assert max(map(len, shares)) == -(-61 // count)
    assert [image for share in shares for image in share] == list(range(61))
    assert all(rank["shares"] == list(range(61)) for rank in told[count])


@COUNTS
def test_machines_and_results_are_those_of_one_rank(told: dict[int, list[dict[str, Any]]], count: int) -> None:
    (alone,) = told[1]
    for rank in told[count]:
        assert rank["machines"] == alone["machines"]
        assert rank["results"] == alone["results"]


def test_with_probes_the_training_is_the_same_to_the_last_bit_on_two_ranks(folders: dict[int, Path]) -> None:
    probed, plain = (folders[2] / name for name in ("probed", "plain"))
    for step in (5, 10):
        for part in ("model", "optimizer"):
            assert runs.same(*(runs.checkpoint(run, 1, step)[part] for run in (probed, plain))), (step, part)
    seen = runs.series(probed)
    points = {place: value for place, value in seen.items() if place[0] in ("knn_top1", "probe_top1")}
    assert set(points) == {(name, step) for name in ("knn_top1", "probe_top1") for step in (5, 10)}
    assert {place: value for place, value in seen.items() if place not in points} == runs.series(plain)
    assert all(5 < value <= 100 for value in points.values())
