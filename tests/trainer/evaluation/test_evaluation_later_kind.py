"""An evaluation of one file outside the tree is run like those of the house."""

from __future__ import annotations

from pathlib import Path

import later_kind
import pytest
import runs

from barlow_lab.specs import parse_spec
from trainer.evaluation.running import evaluate


def test_it_is_run_and_its_result_has_protocol_and_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later_kind.add(monkeypatch)
    spec = parse_spec(
        {
            "kind": "nearest_mean",
            "data": "digits",
            "images": {"size": 8, "resize": 8},
            "backbone_from": {"pixels": True},
        }
    )
    assert spec.run_by == "trainer.evaluation.running:evaluate"
    end = evaluate(spec, runs.context(tmp_path))  # type: ignore[arg-type]
    assert end.outcome == "ok", end.message
    assert end.message.startswith("nearest_mean: top1 ")
    assert end.result is not None
    assert (end.result["protocol"], end.result["departures"]) == ("nearest_mean/1", {})
    assert end.result["scores"]["top1"]["last"] > 70, "of ten digits, by the means of their pixels"
