"""A backbone that was pretrained on the images that it is judged on: told, where that is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import runs

from barlow_lab.specs import parse_spec
from trainer.evaluation import run_evaluation
from trainer.evaluation.backbone import PretrainedOn
from trainer.pretraining import pretrain

SAID = (
    "the backbone was pretrained on the images that are judged, split 'test' of data set 'digits': scores may come out "
    "higher than on images that it has not seen, though it saw no labels; pretrain on another split, name another "
    "`test_split`, or say so beside the score"
)


@pytest.fixture(scope="module")
def on_the_test(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretraining of two steps on images of split test, with a probe of it."""
    folder: Path = tmp_path_factory.mktemp("pretraining")
    record = {"probes": {"every_epochs": 1, "limit": 40, "k": 5, "epochs": 1}}
    data = {"name": "digits", "split": "test", "limit": 64}
    end = pretrain(runs.spec(data=data, epochs=1, run={"record": record}), runs.context(folder))
    assert end.outcome == "ok"
    return folder / "attempts/0001"


def judged(folder: Path, resolved: dict[str, str], **changes: Any) -> tuple[dict[str, Any], list[str]]:
    """The result's `data`, and what was warned of."""
    fields = {"kind": "knn", "data": {"name": "digits", "limit": 40}, "images": {"size": 12}, "k": 5}
    context = runs.context(folder)
    context.inputs["backbone"] = resolved
    result = run_evaluation(parse_spec({**fields, "backbone_from": {"file": "ours"}, **changes}), context)  # type: ignore[arg-type]
    assert result is not None
    said = [event.data["message"] for event in runs.events(folder, kind="warning")]
    return result["data"], [each for each in said if "pretrained on" in each]


def test_a_score_of_images_that_were_pretrained_on_says_so(on_the_test: Path, tmp_path: Path) -> None:
    (checkpoint,) = (on_the_test / "checkpoints").glob("step-*")
    for name, resolved in (("path", on_the_test / "backbone"), ("checkpoint", checkpoint)):
        data, said = judged(tmp_path / name, {name: str(resolved)})
        assert (said, data["test_pretrained_on"]) == ([SAID], True)


def test_other_images_and_backbones_of_before_say_nothing(on_the_test: Path, tmp_path: Path) -> None:
    data, said = judged(tmp_path / "train", {"path": str(on_the_test / "backbone")}, test_split="train")
    assert said == []
    assert "test_pretrained_on" not in data
    (tmp_path / "before").mkdir()
    for file in (on_the_test / "backbone").iterdir():
        (tmp_path / "before" / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "before/config.json").read_text())
    assert config["details"]["split"] == "test"
    for key in ("split", "fingerprint", "split_fingerprint"):
        del config["details"][key]
    (tmp_path / "before/config.json").write_text(json.dumps(config))
    data, said = judged(tmp_path / "run", {"path": str(tmp_path / "before")})
    assert said == []
    assert "test_pretrained_on" not in data


def test_the_same_images_are_known_by_another_name() -> None:
    seen = PretrainedOn("mine", "all", frozenset({"part", "whole"}))
    assert seen.holds("digits", "test", "whole")
    assert seen.holds("mine", "all", "changed since")
    assert not seen.holds("mine", "test", "other")


def test_a_probe_of_images_that_are_pretrained_on_is_told(on_the_test: Path) -> None:
    said = [event.data["message"] for event in runs.events(on_the_test.parents[1], kind="warning")]
    assert [each for each in said if "pretrained on" in each] == [
        "run.record.probes: of the 40 images of split 'test', which are judged, 40 are pretrained on, for both splits "
        f"are one: {SAID.partition(': ')[2]}"
    ]
