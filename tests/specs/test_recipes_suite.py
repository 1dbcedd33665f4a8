"""The recipe of the evaluation suite: every protocol, trained beside untrained and otherwise alike."""

from pathlib import Path

import pytest

from barlow_lab.specs import PretrainSpec, load_spec_file, parse_spec

SUITE = load_spec_file(Path(__file__).parents[2] / "recipes" / "suite.yaml")
JOBS = {name: parse_spec({**body, "name": name}) for name, body in SUITE["jobs"].items()}
JUDGED = ("knn", "linear", "semi-1-percent", "semi-10-percent", "svm", "invariance", "detection", "segmentation")


def test_it_holds_every_protocol():
    assert list(JOBS) == ["pretrain", *(each for name in JUDGED for each in (name, f"{name}-untrained"))]
    kinds = [JOBS[name].kind for name in JUDGED]
    assert kinds == [
        "knn",
        "linear",
        "semi_supervised",
        "semi_supervised",
        "svm",
        "invariance",
        "detection",
        "detection",
    ]
    assert [JOBS[name].labels.percent for name in ("semi-1-percent", "semi-10-percent")] == [1, 10]
    assert [JOBS[name].masks for name in ("detection", "segmentation")] == [False, True]
    assert [JOBS[name].protocol for name in ("linear", "semi-1-percent", "svm")] == ["document", "document", "voc07"]


@pytest.mark.parametrize("name", JUDGED)
def test_trained_and_untrained_differ_in_the_backbone_alone(name):
    trained, untrained = (SUITE["jobs"][each] for each in (name, f"{name}-untrained"))
    pretrain = JOBS["pretrain"]
    assert isinstance(pretrain, PretrainSpec)
    assert trained["backbone_from"] == {"job": "pretrain"}
    assert untrained["backbone_from"] == {"random": 0}
    assert JOBS[f"{name}-untrained"].backbone == pretrain.backbone.architecture
    assert {**trained, "backbone_from": None} == {
        key: None if key == "backbone_from" else value for key, value in untrained.items() if key != "backbone"
    }


def test_generated_data_alone_is_used():
    assert {job.data.name for job in JOBS.values()} == {"textures", "scenes"}
