"""Every objective that is no default in the loop: what it records, and that a run of it goes on to the same end."""

import runs

from trainer.pretraining import pretrain

VICREG = {"objective": {"name": "vicreg"}}
PARTS = {"loss", "invariance", "variance", "covariance", "feature_std_mean"}


def test_vicreg_records_its_own_terms_and_learns(tmp_path):
    assert pretrain(runs.spec(**VICREG), runs.context(tmp_path)).outcome == "ok"
    points = [event.data["values"] for event in runs.events(tmp_path) if event.kind == "metrics"]
    points = [values for values in points if "loss" in values]
    assert all(values.keys() - runs.CLOCKED == PARTS | {"grad_norm", "learning_rate"} for values in points)
    assert points[-1]["loss"] < points[0]["loss"]
    records = [event.data for event in runs.events(tmp_path) if event.kind == "correlation"]
    assert len(records) == 2
    assert all("off_diagonal_excess" not in record["summary"] for record in records)


def test_vicreg_stopped_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    spec = runs.spec(**VICREG)
    assert pretrain(spec, runs.context(tmp_path / "whole")).outcome == "ok"
    stopped = runs.context(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(stopped.stop, "requested", lambda step: step == 7)
        assert pretrain(spec, stopped).outcome == "stopped"
    end = pretrain(spec, runs.context(tmp_path / "run", 2))
    assert runs.resume_step(tmp_path / "run", 2) == 7
    assert end.outcome == "ok"
    assert runs.series(tmp_path / "run") == runs.series(tmp_path / "whole")
    for part in ("model", "optimizer"):
        whole = runs.checkpoint(tmp_path / "whole", 1, 20)[part]
        assert runs.same(runs.checkpoint(tmp_path / "run", 2, 20)[part], whole)
