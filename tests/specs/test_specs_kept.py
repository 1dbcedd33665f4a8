"""Specs that were submitted before there was a second objective: each keeps its digest, as given and as it was stored.

kept/specs_and_digests.json was written once, by the version whose only objective was Barlow Twins, and is never
renewed: resume and `compare` trust the digests that databases hold.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from barlow_lab.specs import digest, load_spec_file, parse_spec

KEPT = json.loads((Path(__file__).parent / "kept/specs_and_digests.json").read_text())
RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("spec", KEPT["specs"], ids=[str(number) for number in range(len(KEPT["specs"]))])
def test_a_spec_keeps_its_digest_as_given_and_as_it_was_stored(spec: dict[str, Any]) -> None:
    assert digest(parse_spec(spec["given"])) == spec["digest"]
    assert digest(parse_spec(spec["resolved"])) == spec["digest"]


def test_the_kept_specs_are_of_every_kind_and_optimizer() -> None:
    """Of two that are the same science, a default written out, the digests are equal; of no others."""
    kept = [spec["resolved"] for spec in KEPT["specs"]]
    assert len(kept) >= 20
    assert len({spec["digest"] for spec in KEPT["specs"]}) == len(kept) - 1
    assert {spec["kind"] for spec in kept} == {"pretrain", "knn", "linear", "semi_supervised", "svm", "detection"}
    assert {spec["optimizer"]["name"] for spec in kept if spec["kind"] == "pretrain"} == {"lars", "sgd", "adamw"}


@pytest.mark.parametrize("recipe", sorted(KEPT["recipes"]))
def test_the_jobs_of_a_recipe_keep_their_digests(recipe: str) -> None:
    given = load_spec_file(RECIPES / f"{recipe}.yaml")
    jobs, kept = given.get("jobs", {"": given}), KEPT["recipes"][recipe]
    assert {name: digest(parse_spec(jobs[name])) for name in kept} == kept, "others may have come since"
