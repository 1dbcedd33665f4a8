"""Data sets of the user's own, by hand: --data NAME=DIR."""

import json
import subprocess
import sys
from functools import partial

import pytest
import ranks
import runs
from odd_trees import make_split

from barlow_lab.specs import parse_spec
from trainer import by_hand
from trainer.__main__ import main
from trainer.data.errors import DataError
from trainer.data.registry import open_data_set
from trainer.failures import BadSpec

KNN = {
    "kind": "knn",
    "data": {"name": "own", "split": "left"},
    "test_split": "right",
    "images": {"size": 8},
    "backbone_from": {"pixels": True},
    "k": 1,
}


def by_command(folder, *arguments, **more):
    return subprocess.run(
        [sys.executable, "-m", "trainer", *map(str, arguments)],
        cwd=folder, env=ranks.environment(**more), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_a_job_finds_its_own_images_and_its_spec_holds_no_path(tmp_path):
    make_split(tmp_path / "photos/left", 24, {3})
    make_split(tmp_path / "photos/right", 10)
    make_split(tmp_path / "photos/left/class-0/@eaDir", 10)
    (tmp_path / "photos/left/loose.png").touch()
    (tmp_path / "photos/beside.png").touch()
    (tmp_path / "knn.json").write_text(json.dumps(KNN))
    done = by_command(tmp_path, "knn.json", "--run-dir", "run", "--data", "own=photos", "--data", "others=elsewhere")
    assert done.returncode == 0, done.stderr
    assert "in no class folder, not used: 1 (loose.png)" in done.stdout
    assert "passed over: 1 x @eaDir" in done.stdout
    assert "images of no split, not used: 1 (beside.png)" in done.stdout
    assert "class-0/003.png cannot be read: " in done.stdout
    end = runs.outcome_of(tmp_path / "run")
    assert end["result"]["data"]["unreadable"] == {"train": 1, "test": 0}
    assert end["result"]["scores"]["top1"]["last"] == 100
    inputs = json.loads((tmp_path / "run/attempts/0001/inputs.json").read_text())
    assert list(inputs["data"]) == ["own"]
    assert inputs["data"]["own"]["root"] == str(tmp_path / "photos")
    assert str(tmp_path) not in (tmp_path / "run/spec.json").read_text()


def test_a_file_name_that_the_terminal_has_no_letters_for_ends_no_run(tmp_path):
    make_split(tmp_path / "photos/left", 24, {3})
    make_split(tmp_path / "photos/right", 10)
    damaged = tmp_path / "photos/left/class-0/003.png"
    damaged.rename(damaged.with_name("写真.png"))
    (tmp_path / "knn.json").write_text(json.dumps(KNN))
    done = by_command(tmp_path, "knn.json", "--run-dir", "run", "--data", "own=photos", PYTHONIOENCODING="latin-1")
    assert done.returncode == 0, done.stderr
    assert r"class-0/\u5199\u771f.png cannot be read: " in done.stdout
    assert any("写真.png" in str(event.data) for event in runs.events(tmp_path / "run", kind="warning"))


def test_a_small_run_begins_without_what_takes_seconds_to_import(tmp_path):
    (tmp_path / "spec.json").write_text(json.dumps({**runs.spec().resolved(), "epochs": 1, "max_steps": 1}))
    script = (
        "import os, sys; from trainer.__main__ import main; end = os._exit\n"
        "slow = {'torch._dynamo', 'torchvision', 'sklearn', 'pandas'}\n"
        "def look(status): print(slow & set(sys.modules), flush=True); end(status)\n"
        "os._exit = look; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "spec.json", "--run-dir", "run"],
        cwd=tmp_path, env=ranks.environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "set()"


def test_any_folder_of_images_is_pretrained_on_without_labels(tmp_path):
    make_split(tmp_path / "photos/2024", 24)
    make_split(tmp_path / "photos/#recycle", 24)
    make_split(tmp_path / "photos/.old", 3)
    for image in (tmp_path / "photos/2024/class-0").iterdir():
        image.rename(tmp_path / "photos" / image.name)
    spec = {**runs.spec().resolved(), "data": {"name": "own", "format": "images"}, "batch_size": 8, "epochs": 1}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    done = by_command(tmp_path, "spec.json", "--run-dir", "run", "--data", "own=photos")
    assert done.returncode == 0, done.stderr
    [started] = runs.events(tmp_path / "run", kind="started")
    assert started.data["steps"] == 3
    [data] = runs.events(tmp_path / "run", kind="data")
    assert data.data["format"] == "images"  # as it was read; the source itself is an image_folder
    [warned] = [event.data["message"] for event in runs.events(tmp_path / "run", kind="warning") if "own" in str(event)]
    assert "hidden images, not used: 3 (.old/class-0/000.png, " in warned
    assert "passed over: 1 x #recycle" in warned


def test_a_folder_without_labels_is_named_by_its_prefix(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = by_hand.data_sources({"own": "images:photos", "tree": "./images:photos"}, None)
    assert (found["own"].format, found["own"].root) == ("images", tmp_path / "photos")
    assert (found["tree"].format, found["tree"].root) == ("image_folder", tmp_path / "images:photos")


@pytest.mark.parametrize("argument", ["photos", "own=", "=photos", "own=images:"])
def test_an_argument_that_names_no_folder_is_refused_at_once(monkeypatch, capsys, argument):
    monkeypatch.setattr(sys, "argv", ["trainer", "knn.json", "--run-dir", "run", "--data", argument])
    with pytest.raises(SystemExit):
        main()
    assert f"{argument!r} is not NAME=DIR" in capsys.readouterr().err


def test_a_second_folder_for_one_data_set_is_refused_at_once(monkeypatch, capsys):
    given = ("--data", "own=one", "--data", "other=one", "--data", "own=two")
    monkeypatch.setattr(sys, "argv", ["trainer", "knn.json", "--run-dir", "run", *given])
    with pytest.raises(SystemExit):
        main()
    assert "--data own is given twice; give each folder a name of its own" in capsys.readouterr().err


def test_a_folder_for_a_built_in_set_is_refused_and_a_missing_one_is_asked_for(tmp_path):
    with pytest.raises(BadSpec, match="--data digits: this data set is built in"):
        by_hand.data_sources({"digits": str(tmp_path)}, None)
    with pytest.raises(DataError, match=r"unknown data set 'own'; known: digits, textures, scenes .*--data own=DIR"):
        open_data_set("own", "left")


def test_a_datasets_yaml_says_where_a_set_is_and_in_which_format(tmp_path):
    make_split(tmp_path / "data/photos/links", 24)
    make_split(tmp_path / "data/photos/rechts", 10)
    tree = {"format": "image_folder", "root": "photos", "splits": {"left": "links", "right": "rechts"}}
    (tmp_path / "data/datasets.yaml").write_text(json.dumps({"own": tree, "other": {**tree, "root": "elsewhere"}}))
    (tmp_path / "knn.json").write_text(json.dumps(KNN))
    options = ("--datasets", "data/datasets.yaml", "--data", "other=photos")
    done = by_command(tmp_path, "knn.json", "--run-dir", "run", *options)
    assert done.returncode == 0, done.stderr
    assert runs.outcome_of(tmp_path / "run")["result"]["data"]["train_images"] == 24
    warned = [e.data["message"] for e in runs.events(tmp_path / "run", kind="warning")]
    assert "--data other=photos is used, and not what --datasets data/datasets.yaml says of 'other'" in warned
    inputs = json.loads((tmp_path / "run/attempts/0001/inputs.json").read_text())
    assert list(inputs["data"]) == ["own"]
    assert inputs["data"]["own"]["root"] == str(tmp_path / "data/photos")


def test_a_folder_by_hand_comes_before_the_one_of_datasets_yaml(tmp_path):
    (tmp_path / "datasets.yaml").write_text(
        '{"own": {"format": "stl10", "root": "stl"}, "b": {"format": "stl10", "root": "c"}}'
    )
    told: list[str] = []
    found = by_hand.data_sources({"own": str(tmp_path / "photos")}, tmp_path / "datasets.yaml", told.append)
    assert (found["own"].format, found["own"].root) == ("image_folder", tmp_path / "photos")
    assert (found["b"].format, found["b"].root) == ("stl10", tmp_path / "c")
    file = tmp_path / "datasets.yaml"
    assert told == [f"--data own={tmp_path / 'photos'} is used, and not what --datasets {file} says of 'own'"]


@pytest.mark.parametrize(("text", "message"), [
    (None, "--datasets .*datasets.yaml cannot be read: No such file"),
    ('{"own": {"format": "stl10"}, "digits": {"format": "stl10", "root": "."}}', "/own/root: .*/digits: .*built in"),
])  # fmt: skip
def test_a_datasets_yaml_that_cannot_be_read_is_refused_with_all_its_faults(tmp_path, text, message):
    if text is not None:
        (tmp_path / "datasets.yaml").write_text(text)
    with pytest.raises(BadSpec, match=message):
        by_hand.data_sources({}, tmp_path / "datasets.yaml")


DIGITS = {"kind": "knn", "data": {"name": "digits", "limit": 40}, "backbone_from": {"pixels": True}, "k": 1}


def test_an_image_size_left_out_is_the_data_set_s_and_stands_in_the_run(tmp_path):
    (tmp_path / "knn.json").write_text(json.dumps(DIGITS))
    done = by_command(tmp_path, "knn.json", "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run/spec.json").read_text())["images"]["size"] == 8
    assert runs.outcome_of(tmp_path / "run")["result"]["images"] == {"size": 8, "resized": 9, "resize_to": "short_side"}


def test_by_hand_run_then_backbone_then_data_set_decide_the_image_size(tmp_path):
    spec = parse_spec({**DIGITS, "backbone_from": {"job": "pretrain"}})
    side = partial(by_hand.image_side, tmp_path / "run", spec)
    assert side(None, {}) == 8
    checkpoint, published, former = (tmp_path / name for name in ("checkpoint", "published", "former"))
    for folder, file, content in (
        (checkpoint, "manifest.json", {"spec": runs.spec().resolved()}),
        (published, "config.json", {"backbone": {"name": "vgg11"}, "details": {"image_size": 20}}),
        (former, "config.json", {"backbone": {"name": "tiny"}, "details": {}}),
    ):
        folder.mkdir()
        (folder / file).write_text(json.dumps(content))
    assert side(checkpoint, {}) == 12
    assert side(published, {}) == 32  # the smallest that the network takes
    assert side(former, {}) == 8
    by_hand.begin(tmp_path / "run", spec, None)  # as the version before wrote it: 224, a default
    assert side(checkpoint, {}) == 224
    assert by_hand.image_side(tmp_path, parse_spec(KNN), None, {}) is None
