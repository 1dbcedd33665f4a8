"""A backbone that was pretrained on the images that it is judged on: told, where that is known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
from PIL import Image

from barlow_lab.specs import BackboneSpec, parse_spec
from barlow_lab.specs.data_sets import parse_source
from trainer.data.registry import open_data_set
from trainer.evaluation import run_evaluation
from trainer.models.backbones import build_backbone
from trainer.models.exported import save_backbone
from trainer.pretraining import pretrain

TINY = BackboneSpec(name="tiny", stem="small")

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


def judged(
    folder: Path, resolved: dict[str, str], *, sources: dict[str, Any] | None = None, **changes: Any
) -> tuple[dict[str, Any], list[str]]:
    """The result's `data`, and what was warned of; `sources` are data sets."""
    fields = {"kind": "knn", "data": {"name": "digits", "limit": 40}, "images": {"size": 12}, "k": 5}
    context = runs.context(folder)
    context.inputs |= {"backbone": resolved, "data": sources or {}}
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


@pytest.fixture
def numbered(tmp_path: Path) -> dict[str, object]:
    """A data set whose splits have files of the same names and sizes, and other images."""
    rng = np.random.default_rng(0)
    for folder in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / "numbered" / folder).mkdir(parents=True)
        for number in range(4):
            image = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8))
            image.save(tmp_path / "numbered" / folder / f"{number}.bmp")
    return {"format": "image_folder", "root": str(tmp_path / "numbered")}


def backbone_on(source: dict[str, object], folder: Path, **details: str) -> dict[str, str]:
    """A backbone that says it was pretrained on split train of the data set `mine`, or as `details` say."""
    folder.mkdir()
    save_backbone(
        folder / "backbone",
        build_backbone(TINY, seed=0),
        TINY,
        details={
            "data": "mine",
            "split": "train",
            "fingerprint": open_data_set("mine", "train", source=parse_source(source)).fingerprint,
            **details,
        },
    )
    return {"path": str(folder / "backbone")}


def test_other_images_of_the_same_file_names_and_sizes_are_not_taken_for_them(
    numbered: dict[str, object], tmp_path: Path
) -> None:
    both = [open_data_set("mine", split, source=parse_source(numbered)).fingerprint for split in ("train", "test")]
    assert both[0] == both[1]
    mine = {"data": {"name": "mine"}, "sources": {"mine": numbered}, "k": 1}
    data, said = judged(tmp_path / "run", backbone_on(numbered, tmp_path / "one"), **mine)
    assert (said, "test_pretrained_on" in data) == ([], False)

    root = Path(str(numbered["root"]))
    shutil.copytree(root / "test", root / "third")
    data, said = judged(tmp_path / "again", backbone_on(numbered, tmp_path / "two", split="third"), **mine)
    assert [each.partition(": scores")[0] for each in said] == [
        "data set 'mine': of the 8 images of split 'test', which are judged, 8 have name, size and content of one that "
        "is pretrained on in split 'third'"
    ]
    assert data["test_pretrained_on"] is True


@pytest.mark.parametrize(
    ("details", "where"),
    [
        ({"data": "others"}, "split 'train' of data set 'others', whose files have the names and sizes of the"),
        ({"split": "gone"}, "split 'gone' of data set 'mine', whose files have the names and sizes of the"),
        ({"split": "test", "fingerprint": "0"}, "split 'test' of data set 'mine', the same by name, and not by its"),
    ],
)
def test_what_cannot_be_known_is_told_as_that_and_is_no_fact(
    numbered: dict[str, object], tmp_path: Path, details: dict[str, str], where: str
) -> None:
    mine = {"data": {"name": "mine"}, "sources": {"mine": numbered}, "k": 1}
    data, said = judged(tmp_path / "run", backbone_on(numbered, tmp_path / "one", **details), **mine)
    (only,) = said
    assert only.startswith(f"the backbone may have been pretrained on the images that are judged: it was on {where}")
    assert "test_pretrained_on" not in data


def test_a_probe_of_images_that_are_pretrained_on_is_told(on_the_test: Path) -> None:
    said = [event.data["message"] for event in runs.events(on_the_test.parents[1], kind="warning")]
    assert [each for each in said if "pretrained on" in each] == [
        "run.record.probes: of the 40 images of split 'test', which are judged, 40 are pretrained on, for both splits "
        f"are one: {SAID.partition(': ')[2]}"
    ]
