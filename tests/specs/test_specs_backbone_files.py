"""Which backbones stand below a folder, by the names that a spec gives them."""

from pathlib import Path

import pytest

from barlow_lab.specs import backbone_files
from barlow_lab.specs.backbone_files import backbones_below


def put(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_files_at_any_depth_and_folders_that_hold_a_backbone(tmp_path: Path) -> None:
    put(*(tmp_path / name for name in ("b.pth", "a/x.safetensors", "ours/config.json", "ours/model.safetensors")))
    put(*(tmp_path / name for name in (".hidden.pth", ".git/config.json", "step/manifest.json", "empty/.keep")))
    found = backbones_below(tmp_path)
    assert found.names == [
        "a/x.safetensors", "b.pth", "ours", "ours/config.json", "ours/model.safetensors", "step", "step/manifest.json",
    ]  # fmt: skip
    assert (found.complete, found.folder) == (True, True)


def test_a_link_counts_where_a_job_may_follow_it(tmp_path: Path) -> None:
    root = tmp_path / "root"
    put(root / "real/x.pth", tmp_path / "outside.pth", tmp_path / "elsewhere/y.pth")
    for name, target in (
        ("alias", root / "real"), ("file.pth", root / "real/x.pth"), ("real/loop", root),
        ("out.pth", tmp_path / "outside.pth"), ("out", tmp_path / "elsewhere"), ("dead.pth", root / "nowhere"),
    ):  # fmt: skip
        (root / name).symlink_to(target)
    assert backbones_below(root).names == ["alias/x.pth", "file.pth", "real/x.pth"]
    (tmp_path / "linked").symlink_to(root)
    assert backbones_below(tmp_path / "linked").names == ["alias/x.pth", "file.pth", "real/x.pth"]


def test_a_list_without_end_is_cut_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone_files, "MOST", 3)
    put(*(tmp_path / f"{number}.pth" for number in range(5)))
    found = backbones_below(tmp_path)
    assert (len(found.names), found.complete) == (3, False)


def test_a_folder_that_is_not_there_is_no_empty_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        backbones_below(tmp_path / "nowhere")
    put(tmp_path / "file")
    with pytest.raises(NotADirectoryError):
        backbones_below(tmp_path / "file")
