"""A probe that a stop cuts short is made by the attempt that goes on, and told once however that one ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import runs

from trainer.evaluation.units import Stopped
from trainer.pretraining import pretrain
from trainer.probes import Probes


def test_a_probe_made_anew_by_two_attempts_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = {"metrics_every_steps": 1, "correlation_every_epochs": 10, "probes": {"every_epochs": 1, "limit": 40}}
    spec = runs.spec(epochs=2, run={"checkpoint": {"every_epochs": 2}, "record": record})

    def stopped(probes: Probes, *_: object) -> dict[str, float]:
        raise Stopped

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Probes, "_look", stopped)
        assert pretrain(spec, runs.context(tmp_path, 1)).outcome == "stopped"
    with monkeypatch.context() as patch:
        patch.setattr("trainer.pretraining._Pace.report", killed)
        with pytest.raises(KeyboardInterrupt):
            pretrain(spec, runs.context(tmp_path, 2))
    assert pretrain(spec, runs.context(tmp_path, 3)).outcome == "ok"

    assert [runs.resume_step(tmp_path, attempt) for attempt in (2, 3)] == [5, 5]
    probed = {key for key in runs.series(tmp_path) if key[0] in ("knn_top1", "probe_top1")}
    assert probed == {(name, step) for name in ("knn_top1", "probe_top1") for step in (5, 10)}
