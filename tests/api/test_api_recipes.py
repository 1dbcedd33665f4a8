"""The spec files that a service has ready, over HTTP."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from service.settings import Settings

RECIPES = Path(__file__).parents[2] / "recipes"


def test_every_recipe_is_listed_with_what_was_published_and_can_be_submitted(api: httpx.Client) -> None:
    items = {item["name"]: item for item in api.get("/recipes").json()["items"]}
    assert set(items) == {path.stem for path in RECIPES.glob("*.yaml")}
    assert {name: item["fault"] for name, item in items.items()} == dict.fromkeys(items)
    assert all(item["description"] for item in items.values())
    linear = items["linear-imagenet"]
    assert linear["what"] == "linear"
    assert linear["description"].startswith("Linear evaluation on ImageNet")
    (row,) = linear["published"]
    assert (row["job"], row["scores"]) == ("", {"top1": 73.2, "top5": 91.0})
    assert "arXiv 2103.03230" in row["source"]
    paper = items["imagenet-paper"]
    assert paper["what"] == "experiment of pretrain: pretrain, linear: linear"
    assert [row["job"] for row in paper["published"]] == ["linear"]
    assert items["digits"]["published"] == []
    assert items["textures-lambda"]["what"] == "experiment of pretrain: pretrain, knn: knn, which become 18 jobs"


@pytest.mark.parametrize("name", ["svm-voc07", "imagenet-batch-128"])
def test_a_recipe_is_its_file_and_goes_back_in_as_it_is(api: httpx.Client, name: str) -> None:
    answer = api.get(f"/recipes/{name}")
    assert answer.headers["content-type"].startswith("application/yaml")
    assert answer.text == (RECIPES / f"{name}.yaml").read_text("utf-8")


@pytest.mark.parametrize("name", ["nobody", "..%2Fpyproject", "demo.yaml", "%2E%2E"])
def test_what_is_no_recipe_is_not_found(api: httpx.Client, name: str) -> None:
    assert api.get(f"/recipes/{name}").status_code == 404


def test_a_lab_s_own_folder_takes_their_place_and_a_file_that_is_no_spec_says_why(
    database: Settings, tmp_path: Path, in_process: Callable[[Settings], AbstractContextManager[httpx.Client]]
) -> None:
    (tmp_path / "ours.yaml").write_text(
        "# Our probe.\n#\n# More.\nkind: knn\ndata: digits\nbackbone_from: {pixels: true}\n"
    )
    (tmp_path / "torn.yaml").write_text("kind: knn\ndata: digits\n")
    (tmp_path / "jobs.yaml").write_text("name: a\njobs: [1]\n")
    (tmp_path / "bytes.yaml").write_bytes(b"# \xff\nkind: \xff\n")
    (tmp_path / "notes.txt").write_text("no recipe")
    (tmp_path / ".hidden.yaml").write_text("no recipe")
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "endless.yaml").symlink_to("/dev/zero")
    (tmp_path / "leak.yaml").symlink_to("/etc/passwd")
    (tmp_path / "circle.yaml").symlink_to("circle.yaml")
    with in_process(database.model_copy(update={"recipes_dir": tmp_path})) as api:
        items = {item["name"]: item for item in api.get("/recipes").json()["items"]}
        assert set(items) == {"ours", "torn", "jobs", "bytes"}
        assert (items["ours"]["description"], items["ours"]["what"]) == ("Our probe.", "knn")
        assert "/backbone_from" in items["torn"]["fault"]
        assert items["jobs"]["fault"]
        assert "cannot be read" in items["bytes"]["fault"]
        assert api.get("/recipes/bytes").text == "# \ufffd\nkind: \ufffd\n"
        (tmp_path / "torn.yaml").write_text("kind: knn\ndata: digits\nbackbone_from: {pixels: true}\n# mended\n")
        assert next(i for i in api.get("/recipes").json()["items"] if i["name"] == "torn")["fault"] is None
