"""Every objective that is no default in the loop: what it records, and that a run of it goes on to the same end."""

import pytest
import runs
import torch

from trainer.failures import BadSpec
from trainer.pretraining import pretrain
from trainer.train_state import TrainState

VICREG = {"objective": {"name": "vicreg"}}
PCL = {"objective": {"name": "pcl", "queue": 96, "clusters": [4, 9], "negatives": 5, "warmup_epochs": 1, "restarts": 2}}
W_MSE = {"objective": {"name": "w_mse", "sub_batch": 16}, "projector": {"widths": [24, 8]}}
NT_XENT = {"objective": {"name": "nt_xent", "temperature": 0.5}}
BOTTLENECK = {"objective": {"name": "information_bottleneck"}}
SIMSIAM = {"objective": {"name": "simsiam"}}
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


def test_nt_xent_records_how_well_it_tells_images_apart_and_learns(tmp_path):
    assert pretrain(runs.spec(**NT_XENT), runs.context(tmp_path)).outcome == "ok"
    points = [event.data["values"] for event in runs.events(tmp_path) if event.kind == "metrics"]
    points = [values for values in points if "loss" in values]
    parts = {"loss", "positive_cosine", "positives_top1", "grad_norm", "learning_rate"}
    assert all(values.keys() - runs.CLOCKED == parts for values in points)
    assert points[-1]["loss"] < points[0]["loss"]
    assert points[-1]["positives_top1"] > points[0]["positives_top1"]
    records = [event.data for event in runs.events(tmp_path) if event.kind == "correlation"]
    assert all("off_diagonal_excess" not in record["summary"] for record in records)


def test_w_mse_tells_once_that_covariances_were_singular_and_goes_on(tmp_path, monkeypatch):
    """Of embeddings with a feature that is the same for all images."""
    written = TrainState._written

    def with_a_dead_feature(state, pixels):
        embeddings, features = written(state, pixels)
        return torch.cat([embeddings[:, :-1], torch.ones_like(embeddings[:, -1:])], 1), features

    monkeypatch.setattr(TrainState, "_written", with_a_dead_feature)
    assert pretrain(runs.spec(**W_MSE), runs.context(tmp_path)).outcome == "ok"
    counts = [value for (name, _), value in sorted(runs.series(tmp_path).items()) if name == "singular_covariances"]
    assert counts == [4 * step for step in range(1, 21)]  # of two views of two sub-batches
    (warning,) = [event for event in runs.events(tmp_path, kind="warning") if "singular" in event.data["message"]]
    assert "singular_covariances counts how often. Where it grows, lower" in warning.data["message"]


def test_pcl_records_its_own_terms_and_prototypes_after_the_warm_up(tmp_path):
    spec = runs.spec(**PCL, optimizer={"name": "adamw", "learning_rate": 3e-3, "reference_batch_size": None})
    assert pretrain(spec, runs.context(tmp_path)).outcome == "ok"
    points = [event.data["values"] for event in runs.events(tmp_path) if event.kind == "metrics"]
    points = [values for values in points if "loss" in values]
    beside = {"loss", "grad_norm", "learning_rate", "instances", "instances_top1"}
    prototypes = {"prototypes", "prototypes_top1"}
    assert [values.keys() - runs.CLOCKED for values in points] == [beside] * 5 + [beside | prototypes] * 15
    assert points[-1]["prototypes"] < points[5]["prototypes"]


def test_pcl_is_refused_where_there_are_fewer_images_than_it_needs(tmp_path):
    """Of a split without a limit that is known only when it is open."""
    objective = {**PCL["objective"], "queue": 32 * 100, "clusters": [5, 2000]}
    with pytest.raises(BadSpec) as caught:
        pretrain(runs.spec(data="digits", objective=objective), runs.context(tmp_path))
    assert "objective.queue: a queue of 3200 keys is above the" in str(caught.value)
    assert "objective.clusters: 2000 clusters of" in str(caught.value)


def test_a_predictor_is_trained_and_no_part_of_the_backbone(tmp_path):
    """The cosine grows, and what is exported has the backbone's parameters alone."""
    quick = {"name": "adamw", "learning_rate": 0.05, "reference_batch_size": None}
    end = pretrain(runs.spec(**SIMSIAM, optimizer=quick), runs.context(tmp_path))
    points = [event.data["values"] for event in runs.events(tmp_path) if event.kind == "metrics"]
    points = [values for values in points if "loss" in values]
    assert all(values.keys() - runs.CLOCKED == {"loss", "unit_std", "grad_norm", "learning_rate"} for values in points)
    assert points[-1]["loss"] < points[0]["loss"] - 0.1
    counts = runs.events(tmp_path, kind="started")[0].data["parameter_groups"]
    assert counts["constant_matrices"] == {"tensors": 2, "parameters": 2 * 16 * 4}
    plain = pretrain(runs.spec(epochs=1), runs.context(tmp_path / "plain"))
    assert end.result["backbone"]["parameters"] == plain.result["backbone"]["parameters"]


@pytest.mark.parametrize(
    "objective",
    [VICREG, PCL, W_MSE, BOTTLENECK, SIMSIAM],
    ids=["vicreg", "pcl", "w_mse", "bottleneck", "simsiam"],
)
def test_stopped_it_goes_on_to_the_same_bits(objective, tmp_path, monkeypatch):
    spec = runs.spec(**objective)
    assert pretrain(spec, runs.context(tmp_path / "whole")).outcome == "ok"
    stopped = runs.context(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(stopped.stop, "requested", lambda step: step == 7)
        assert pretrain(spec, stopped).outcome == "stopped"
    end = pretrain(spec, runs.context(tmp_path / "run", 2))
    assert runs.resume_step(tmp_path / "run", 2) == 7
    assert end.outcome == "ok"
    assert runs.series(tmp_path / "run") == runs.series(tmp_path / "whole")
    whole, found = runs.checkpoint(tmp_path / "whole", 1, 20), runs.checkpoint(tmp_path / "run", 2, 20)
    for part in whole.keys() - {"metrics"}:
        assert runs.same(found[part], whole[part]), part
