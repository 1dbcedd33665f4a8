"""What `barlow up` gives its worker to train on: named, in the environment, or found; and what it says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.local.host_files import HostFiles, host_files

ENTRY = "photos: {format: images, root: photos}\n"


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stack/data").mkdir(parents=True)
    return tmp_path / "stack"


def found(stack: Path, data_sets: str | None = None, backbones: str | None = None, **environment: str) -> HostFiles:
    given = [None if name is None else Path(name) for name in (data_sets, backbones)]
    return host_files(stack, *given, {f"BARLOW_{name}": value for name, value in environment.items()})


def test_nothing_is_found_and_the_options_are_named(stack: Path) -> None:
    nothing = found(stack)
    assert nothing.settings == {}
    assert nothing.said == (
        "data sets   digits, textures, scenes (built in); --datasets FILE adds yours, docs/data-sets.md says how",
        "backbones   no folder of weights; --backbones DIR names one, docs/backbones.md says for what",
    )
    Path("datasets.yaml").write_text(ENTRY)
    assert "the datasets.yaml of this folder is not used without it" in found(stack).said[0]


@pytest.mark.parametrize("place", ["data/datasets.yaml", "datasets.yaml", "datasets.yml"])
def test_a_datasets_yaml_in_the_data_folder_is_found_and_its_sets_are_said(stack: Path, place: str) -> None:
    (stack / place).write_text(ENTRY + "more: {format: stl10, root: stl}\n")
    there = found(stack)
    assert there.settings == {"DATASETS_FILE": str(stack / place)}
    said = f"data sets   photos (images), more (stl10) of {stack / place}, beside digits, textures, scenes"
    assert there.said[0] == said


def test_two_of_them_are_refused_until_one_is_named(stack: Path) -> None:
    for place in ("data/datasets.yaml", "datasets.yaml"):
        (stack / place).write_text(ENTRY)
    with pytest.raises(ValueError, match=r"data/datasets.yaml and .*/datasets.yaml are both there; name one"):
        found(stack)
    assert found(stack, "stack/datasets.yaml").settings["DATASETS_FILE"] == str(stack / "datasets.yaml")


def test_the_option_comes_before_the_environment_and_that_before_what_is_found(stack: Path) -> None:
    for place in ("option.yaml", "environment.yaml", "stack/datasets.yaml", "mounted/datasets.yaml"):
        Path(place).parent.mkdir(exist_ok=True)
        Path(place).write_text(ENTRY)
    file = {"DATASETS_FILE": "environment.yaml"}
    assert found(stack, "option.yaml", **file).settings["DATASETS_FILE"] == str(Path("option.yaml").absolute())
    assert found(stack, **file).settings["DATASETS_FILE"] == str(Path("environment.yaml").absolute())
    (stack / "datasets.yaml").unlink()
    of_dir = found(stack, DATA_DIR="mounted").settings
    assert of_dir["DATASETS_FILE"] == str(Path("mounted/datasets.yaml").absolute())


def test_faults_of_the_file_end_it_before_anything_starts(stack: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere.yaml cannot be read: No such file"):
        found(stack, "nowhere.yaml")
    Path("bad.yaml").write_text("photos: {format: imags, root: x}\nmore: {format: stl10}\n")
    with pytest.raises(ValueError, match=r"bad.yaml: /photos/format: .*did you mean 'images'.*; /more/root"):
        found(stack, "bad.yaml")


def test_backbones_are_counted_where_the_option_or_the_environment_says(stack: Path) -> None:
    Path("weights").mkdir()
    assert found(stack, backbones="weights").said[1] == f"backbones   none yet in {Path('weights').absolute()}"
    for number in range(12):
        Path(f"weights/{number:02d}.pth").touch()
    there = found(stack, BACKBONES_DIR="weights")
    assert there.settings == {"BACKBONES_DIR": str(Path("weights").absolute())}
    assert there.said[1].startswith("backbones   00.pth, 01.pth, ")
    assert there.said[1].endswith(f"09.pth and 2 more in {Path('weights').absolute()}")
    Path("here.pth").touch()
    assert "here.pth" in found(stack, backbones=".").said[1]
    with pytest.raises(ValueError, match=r"nowhere is no folder of backbones: No such file"):
        found(stack, backbones="nowhere")
