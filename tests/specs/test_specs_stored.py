"""A stored spec is opened as it was stored, whatever is known of it here, and judged no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from barlow_lab.specs import (
    BackboneJudged,
    PretrainSpec,
    SgdSpec,
    canonical_json,
    digest,
    open_stored,
    parse_spec,
    written_out,
)

KEPT = json.loads((Path(__file__).parent / "kept/specs_and_digests.json").read_text())["specs"]
PRETRAIN: dict[str, Any] = parse_spec({"kind": "pretrain", "data": "digits"}).resolved()


@pytest.mark.parametrize("kept", KEPT, ids=[str(number) for number in range(len(KEPT))])
def test_a_stored_spec_is_opened_as_the_one_that_was_accepted(kept: dict[str, Any]) -> None:
    spec = parse_spec(kept["given"])
    opened = open_stored(json.loads(canonical_json(spec.resolved())))
    assert opened == spec
    assert opened.resolved() == spec.resolved()


def test_what_is_not_known_here_or_was_not_yet_there_is_opened_too() -> None:
    former = {key: value for key, value in PRETRAIN.items() if key != "micro_batch"}
    run = {key: value for key, value in former["run"].items() if key != "compile"}
    opened = open_stored(
        {
            **former,
            "run": {**run, "max_restarts": 7, "of_a_former_version": True},
            "backbone": {**former["backbone"], "name": "of-somebody-else"},
            "optimizer": {"name": "sgd", "momentum": 0.5},
            "batch_size": 2,
        }
    )
    assert isinstance(opened, PretrainSpec)
    assert (opened.run.max_restarts, opened.run.compile, opened.micro_batch) == (7, "auto", None)
    assert (opened.backbone.name, opened.batch_size) == ("of-somebody-else", 2)
    assert isinstance(opened.optimizer, SgdSpec)
    assert (opened.optimizer.momentum, opened.optimizer.learning_rate) == (0.5, SgdSpec(name="sgd").learning_rate)


OF_LATER_VERSIONS = {
    "backbone": ("frozen", "statistics"),
    "projector": ("batch_norm",),
    "objective": (
        "normalisation", "factor", "redundancy", "terms", "loss", "temperature", "stop_gradient", "predictor_width",
    ),
}  # fmt: skip
"""Fields that specs of the first version do not have, by their part."""


def of_the_first_version(stored: dict[str, Any]) -> dict[str, Any]:
    former = {part: {k: v for k, v in stored[part].items() if k not in new} for part, new in OF_LATER_VERSIONS.items()}
    return stored | former


def test_specs_of_two_versions_are_written_out_alike() -> None:
    former = of_the_first_version(PRETRAIN)
    assert former != PRETRAIN
    assert digest(open_stored(former)) == digest(open_stored(PRETRAIN))  # type: ignore[arg-type]
    assert written_out(former) == written_out(PRETRAIN) == PRETRAIN


def test_what_is_not_known_here_is_written_out_as_it_is() -> None:
    """So what differs of it is seen."""
    elsewhere = {"name": "gone", "temperature": 2.0, "parts": {"a": [1]}}
    assert written_out({**PRETRAIN, "objective": elsewhere}) == {**PRETRAIN, "objective": elsewhere}
    gone = {"name": "gone", "betas": [0.9, 0.99], "learning_rate": 0.1}
    assert written_out({**PRETRAIN, "optimizer": gone}) == {**PRETRAIN, "optimizer": gone}
    later = {**PRETRAIN, "kind": "of-a-later-version", "odd": 3}
    assert written_out(later) == later
    assert written_out({**PRETRAIN, "batch_size": "many"})["batch_size"] == "many"


def test_of_a_kind_that_is_not_known_what_every_kind_has_is_opened() -> None:
    opened = open_stored({**PRETRAIN, "kind": "of-a-later-version"})
    assert not isinstance(opened, PretrainSpec | BackboneJudged)
    assert (opened.data.name, opened.run.max_restarts) == ("digits", 3)
