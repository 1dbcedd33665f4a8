"""Backbones of a host by name: found below its folder, and nowhere else."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from barlow_lab.specs import BackboneFrom
from worker import backbone_sources


def backbone_on_host(source: dict[str, str], root: Path | None) -> dict[str, str] | None:
    """Of a stored spec, which is not validated again."""
    return backbone_sources.backbone_on_host(BackboneFrom.model_construct(**source), root)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "backbones"
    (root / "published").mkdir(parents=True)
    (root / "published" / "resnet50.pth").touch()
    (root / "published" / "resnet18.pth").touch()
    return root


def test_a_file_is_an_absolute_path_below_the_root_and_torchvision_the_root_itself(root: Path) -> None:
    found = backbone_on_host({"file": "published/resnet50.pth"}, root)
    assert found == {"file": str(root / "published" / "resnet50.pth"), "root": str(root)}
    assert backbone_on_host({"torchvision": "ResNet50_Weights.IMAGENET1K_V2"}, root) == {"folder": str(root)}


@pytest.mark.parametrize("source", [{}, {"job": "p", "select": "last"}, {"random": 0}, {"pixels": True}])
def test_other_sources_need_no_folder(source: dict) -> None:
    assert backbone_on_host(source, None) is None


@pytest.mark.parametrize(("kind", "name"), [("path", "config.json"), ("checkpoint", "manifest.json")])
def test_folders_of_ours_name_their_digest(root: Path, kind: str, name: str) -> None:
    (root / "ours").mkdir()
    (root / "ours" / name).write_text(json.dumps({"sha256": "abc"}))
    assert backbone_on_host({"file": "ours"}, root) == {kind: str(root / "ours"), "sha256": "abc", "root": str(root)}
    (root / "ours" / name).write_text("{")
    with pytest.raises(ValueError, match=f"ours/{name} does not describe a backbone"):
        backbone_on_host({"file": "ours"}, root)


def test_a_folder_that_holds_no_backbone_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="published is no file of weights, no published backbone"):
        backbone_on_host({"file": "published"}, root)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("published/resnet51.pth", "did you mean published/resnet50.pth or published/resnet18.pth"),
        ("publishd/resnet50.pth", "did you mean published"),
        ("published/resnet50.pth/more", "did you mean published/resnet50.pth or published/resnet18.pth"),
    ],
)
def test_what_is_not_there_is_refused_with_the_nearest_names(root: Path, name: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"is not below BARLOW_BACKBONES_DIR of this host; {said}"):
        backbone_on_host({"file": name}, root)


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it has none yet"):
        backbone_on_host({"file": "resnet50.pth"}, tmp_path)


@pytest.mark.parametrize("source", [{"file": "resnet50.pth"}, {"torchvision": "ResNet50_Weights.IMAGENET1K_V2"}])
def test_a_host_without_a_folder_says_how_to_give_it_one(tmp_path: Path, source: dict) -> None:
    with pytest.raises(ValueError, match=r"BARLOW_BACKBONES_DIR, which is not set on this host; point it"):
        backbone_on_host(source, None)
    with pytest.raises(ValueError, match=r"BARLOW_BACKBONES_DIR, which is no folder on this host; point it"):
        backbone_on_host(source, tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["link.pth", "folder/resnet50.pth", "../secret.pth"])
def test_nothing_outside_is_reached(root: Path, name: str) -> None:
    outside = root.parent / "secret.pth"
    outside.touch()
    (root.parent / "elsewhere").mkdir()
    (root.parent / "elsewhere" / "resnet50.pth").touch()
    (root / "link.pth").symlink_to(outside)
    (root / "folder").symlink_to(root.parent / "elsewhere")
    with pytest.raises(ValueError, match="leads out of BARLOW_BACKBONES_DIR"):
        backbone_on_host({"file": name}, root)


def test_a_link_within_the_folder_is_followed(root: Path) -> None:
    (root / "best.pth").symlink_to(root / "published" / "resnet50.pth")
    assert backbone_on_host({"file": "best.pth"}, root) == {
        "file": str(root / "published/resnet50.pth"),
        "root": str(root),
    }


@pytest.mark.parametrize(("config", "weights"), [("config.json", "model.safetensors"), ("manifest.json", "state.pt")])
def test_no_file_of_a_folder_leads_out_of_the_root(root: Path, config: str, weights: str) -> None:
    outside = root.parent / "secret"
    outside.write_text(json.dumps({"sha256": "abc"}))
    (root / "ours").mkdir()
    (root / "ours" / config).symlink_to(outside)
    with pytest.raises(ValueError, match=f"ours/{config} does not describe a backbone .*it leads out of "):
        backbone_on_host({"file": "ours"}, root)
    (root / "ours" / config).unlink()
    (root / "ours" / config).write_text(json.dumps({"sha256": "abc"}))
    (root / "ours" / weights).symlink_to(outside)
    with pytest.raises(ValueError, match="it leads out of "):
        backbone_on_host({"file": "ours"}, root)
    (root / "ours" / weights).unlink()
    (root / "weights").write_text("elsewhere below the root")
    (root / "ours" / weights).symlink_to(root / "weights")
    assert backbone_on_host({"file": "ours"}, root) is not None


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "it is a named pipe, and a regular file is expected"),
        (lambda path: path.symlink_to("/dev/zero"), "it leads out of"),
        (lambda path: path.mkdir(), "it is a folder, and a regular file is expected"),
        (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
        (lambda path: path.write_text("[" * 100_000), "it is nested too deeply"),
        (lambda path: path.write_bytes(b"\xff"), "can't decode"),
        (lambda path: (path.touch(), os.truncate(path, 1 << 40)), "it is larger than 16,777,216 bytes"),
    ],
)
def test_what_stands_for_a_config_is_never_waited_for_or_read_without_end(
    root: Path, make: Callable[[Path], None], said: str
) -> None:
    (root / "ours").mkdir()
    make(root / "ours" / "config.json")
    with pytest.raises(ValueError, match=f"ours/config.json does not describe a backbone .*{said}"):
        backbone_on_host({"file": "ours"}, root)


def test_a_pipe_in_the_place_of_a_file_of_weights_is_named(root: Path) -> None:
    os.mkfifo(root / "weights.pth")
    with pytest.raises(ValueError, match="it is a named pipe"):
        backbone_on_host({"file": "weights.pth"}, root)
    (root / "circle").symlink_to("circle")
    with pytest.raises(ValueError, match="circle cannot be opened below BARLOW_BACKBONES_DIR"):
        backbone_on_host({"file": "circle"}, root)
