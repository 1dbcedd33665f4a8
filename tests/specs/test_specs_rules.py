"""Rules that join fields are judged also where other fields could not be read: all faults at once."""

from typing import Any

import pytest

from barlow_lab import specs
from barlow_lab.specs import PretrainSpec, SpecError, parse_spec
from barlow_lab.specs.stored import _choices

PRETRAIN = {"kind": "pretrain", "data": "digits"}
LINEAR = {"kind": "linear", "data": "digits", "backbone_from": {"random": 0}, "backbone": {"name": "tiny"}}
DETECTION = {"kind": "detection", "data": "voc", "backbone_from": {"random": 0}, "backbone": {"name": "resnet50"}}


def pointers(value: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        parse_spec(value)
    found = {fault.pointer: fault.message for fault in caught.value.faults}
    assert len(found) == len(caught.value.faults)
    return found


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"objective": {"name": "pcl", "lambda": 0.1}, "micro_batch": 64}, "/objective/lambda /micro_batch"),
        (
            {"objective": {"name": "vicregg"}, "micro_batch": 50, "resources": {"slots": 3}},
            "/objective/name /batch_size /micro_batch",
        ),
        ({"epochs": "many", "data": {"name": "digits", "limit": 100}}, "/epochs /data/limit"),
        ({"data": 5, "micro_batch": 50}, "/data /micro_batch"),
        ({"colour": 1, "objective": {"name": "w_mse"}}, "/colour /objective/sub_batch"),
        ({"objective": {"lambda": 0}, "backbone": {"name": "tiny", "frozen": True}, "projector": "none"},
         "/objective/lambda /backbone/frozen"),
        ({"views": {"both": {"colour": 1}}, "resources": {"slots": 3}}, "/views/both/colour /batch_size"),
        ({"projector": {"widths": [16384]}, "data": {"name": "digits", "limit": 9}, "batch_size": 8,
          "run": {"record": {"population": {"images": 64}}}}, "/run/record/population"),
        ({"run": {"prority": 1, "published": {"source": "x", "scores": {"top1": 1}}}}, "/run/prority /run/published"),
    ],
)  # fmt: skip
def test_the_rules_are_judged_beside_a_field_that_cannot_be_read(value: dict[str, Any], expected: str) -> None:
    assert set(pointers({**PRETRAIN, **value})) == set(expected.split())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"batch_size": "many", "micro_batch": 50, "data": {"name": "digits", "limit": 9}}, "/batch_size"),
        ({"bach_size": 50, "micro_batch": 50}, "/bach_size"),
        ({"objective": {"name": "w_mse", "sub_bach": 256}}, "/objective/sub_bach"),
        ({"resources": {"slots": "all"}, "batch_size": 333}, "/resources/slots"),
        ({"objective": {"name": "pcl", "queue": "long"}, "epochs": 5}, "/objective/queue"),
        ({"projector": {"widths": [64, 1]}, "objective": {"name": "w_mse"}}, "/projector/widths/1"),
    ],
)
def test_no_rule_is_judged_by_the_default_of_what_cannot_be_read(value: dict[str, Any], expected: str) -> None:
    assert set(pointers({**PRETRAIN, **value})) == set(expected.split())


def test_a_word_where_an_object_is_expected_is_told_with_the_object() -> None:
    words = {"objective": "vicreg", "optimizer": "adamw", "backbone": "tiny", "projector": "linear"}
    found = pointers({**PRETRAIN, **words})
    for field in ("objective", "optimizer", "backbone"):
        assert found[f"/{field}"] == f"an object is expected here: {{name: {words[field]}}}"
    assert found["/projector"].endswith("such as {widths: [128]} for a linear projector, or the word none")


def test_every_objective_of_the_house_is_to_be_imported_from_the_specs() -> None:
    union = _choices(PretrainSpec.model_fields["objective"].annotation)
    assert {model.__name__ for model in union} <= set(specs.__all__)


def test_evaluations_name_all_of_theirs_too() -> None:
    run = {"stop_on": ["collapse"], "published": {"source": "x", "scores": {"top9": 1}}}
    told = "/batch_size /run/stop_on /run/published/scores/top9"
    assert set(pointers({**LINEAR, "run": run, "resources": {"slots": 3}, "lerning_rate": 1})) == {
        *told.split(),
        "/lerning_rate",
    }
    asked = {"steps": 10, "precision": "fp8", "resources": {"slots": 3}, "warmup_steps": 10}
    assert set(pointers({**DETECTION, **asked})) == {"/precision", "/batch_size", "/warmup_steps"}
    assert set(pointers({"kind": "knn", "data": "digits", "run": run})) == {"/backbone_from", *told.split()[1:]}
