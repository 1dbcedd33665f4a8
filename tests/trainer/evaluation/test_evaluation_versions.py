"""Runs that an earlier version of their protocol began: they go on where both mean the same, or are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import labelled_runs
import pytest
from labelled_runs import StopAfter

from barlow_lab.specs import DetectionSpec, SemiSupervisedSpec
from trainer.data.errors import DataError
from trainer.evaluation import run_evaluation
from trainer.failures import BadSpec
from trainer.runtime import checkpoints


def of_before(monkeypatch: pytest.MonkeyPatch, **changed: Any) -> None:
    """Checkpoints are read as the first versions wrote them, which did not say which they were."""
    read_state = checkpoints.read_state

    def read(*given: Any) -> dict[str, Any]:
        state = {key: value for key, value in read_state(*given).items() if key != "protocol_version"}
        return {**state, **changed}

    monkeypatch.setattr(checkpoints, "read_state", read)


def begun(folder: Path, data: Path, kind: str, **changes: Any) -> None:
    context = labelled_runs.context(folder, data)
    context.stop = StopAfter(5)
    assert run_evaluation(labelled_runs.spec(kind, **changes), context) is None


@pytest.mark.parametrize("kind", labelled_runs.KINDS)
def test_a_run_of_before_goes_on_where_its_data_are_read_as_they_were(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = labelled_runs.tree(tmp_path / "data")
    changes = {"labels": {"percent": 50}} if kind == "semi_supervised" else {}
    whole = labelled_runs.run(tmp_path / "whole", data, kind, **changes)
    begun(tmp_path / "cut", data, kind, **changes)
    of_before(monkeypatch)
    resumed = labelled_runs.run(tmp_path / "cut", data, kind, attempt=2, **changes)
    assert resumed == whole
    assert resumed["protocol"] == {"linear": "linear-document/1", "semi_supervised": "semi-supervised-document/2"}[kind]


def test_a_run_of_before_whose_draw_is_another_one_now_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = labelled_runs.tree(tmp_path / "data")
    begun(tmp_path / "run", data, "semi_supervised")
    of_before(monkeypatch, data="the fingerprint of other images")
    with pytest.raises(
        DataError, match=r"not those that this run began with: .*, or this version reads them otherwise"
    ):
        labelled_runs.run(tmp_path / "run", data, "semi_supervised", attempt=2)


def test_a_run_whose_data_set_is_read_otherwise_now_is_refused_with_the_field(tmp_path: Path) -> None:
    data = labelled_runs.tree(tmp_path / "data")
    begun(tmp_path / "run", data, "linear")
    context = labelled_runs.context(tmp_path / "run", data, attempt=2)
    context.inputs["data"]["own"]["value_range"] = "percentile"
    with pytest.raises(DataError) as refused:
        run_evaluation(labelled_runs.spec("linear"), context)
    assert str(refused.value) == (
        "the images of data set 'own' are not those that this run began with: in datasets.yaml its `value_range` is "
        "'percentile' and was 'dtype'. Put that back, or start a new job"
    )


def test_a_run_of_a_later_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = labelled_runs.tree(tmp_path / "data")
    begun(tmp_path / "run", data, "linear")
    of_before(monkeypatch, protocol_version=7)
    with pytest.raises(BadSpec, match=r"began under linear-paper/7, and here .* one of linear-paper/1: submit"):
        labelled_runs.run(tmp_path / "run", data, "linear", attempt=2)


def test_every_version_after_the_first_says_what_it_changed() -> None:
    for model in (DetectionSpec, SemiSupervisedSpec):
        for protocol in model.PROTOCOLS.values():
            assert protocol.version > 1
            assert protocol.changed
