"""The published backbone: whole or absent, and never other weights than were published."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from barlow_lab.specs.common import BackboneSpec
from trainer.data.pixels import PIXEL_MEAN, PIXEL_STD
from trainer.models.backbones import build_backbone
from trainer.models.exported import backbone_digest, load_backbone, save_backbone

TINY = BackboneSpec(name="tiny")


@pytest.fixture
def backbone():
    network = build_backbone(TINY, seed=1)
    network(torch.rand(4, 3, 16, 16))  # running statistics of its own
    return network


@pytest.fixture
def folder(tmp_path, backbone):
    save_backbone(tmp_path / "backbone", backbone, TINY, details={"step": 12, "job": "a"})
    return tmp_path / "backbone"


def test_it_comes_back_as_it_was(folder, backbone):
    loaded = load_backbone(folder)
    assert not loaded.training
    assert loaded.feature_width == 128
    state = backbone.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded(images), backbone.eval()(images))


def test_the_config_tells_how_to_use_it(folder, backbone):
    config = json.loads((folder / "config.json").read_text())
    assert config["format_version"] == 1
    assert config["backbone"] == {"name": "tiny", "stem": "imagenet", "zero_init_residual": True}
    assert config["features"] == 128
    assert (config["pixel_mean"], config["pixel_std"]) == (list(PIXEL_MEAN), list(PIXEL_STD))
    assert config["details"] == {"step": 12, "job": "a"}
    assert (
        config["sha256"]
        == backbone_digest(backbone.state_dict())
        == backbone_digest(load_file(folder / "model.safetensors"))
    )
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert [path.name for path in folder.parent.iterdir()] == ["backbone"]


def test_a_float64_backbone_is_published_in_float32(tmp_path, backbone):
    save_backbone(tmp_path / "b", backbone.double(), TINY, details={})
    assert {v.dtype for v in load_file(tmp_path / "b/model.safetensors").values()} == {torch.float32, torch.int64}
    assert load_backbone(tmp_path / "b")(torch.rand(1, 3, 16, 16)).dtype == torch.float32
    assert next(backbone.parameters()).dtype == torch.float64


def test_memory_layout_does_not_matter(tmp_path, backbone):
    before = backbone_digest(backbone.state_dict())
    backbone.to(memory_format=torch.channels_last)
    assert backbone_digest(backbone.state_dict()) == before
    save_backbone(tmp_path / "b", backbone, TINY, details={})
    assert backbone_digest(load_backbone(tmp_path / "b").state_dict()) == before


def test_a_new_one_replaces_the_old(folder):
    other = build_backbone(TINY, seed=9)
    save_backbone(folder, other, TINY, details={"step": 13})
    assert backbone_digest(load_backbone(folder).state_dict()) == backbone_digest(other.state_dict())
    assert [path.name for path in folder.parent.iterdir()] == ["backbone"]


def test_what_a_killed_writer_left_is_cleared(folder, backbone):
    partial = folder.with_name(".backbone.partial")
    partial.mkdir()
    (partial / "junk").write_text("half")
    save_backbone(folder, backbone, TINY, details={})
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert not partial.exists()


def test_a_kill_leaves_no_half_folder(tmp_path):
    """A writer that publishes over and over is stopped at many moments: what stands there then loads."""
    script = (
        "import sys; from pathlib import Path; import torch; torch.set_num_threads(1)\n"
        "from trainer.models.backbones import build_backbone; from trainer.models.exported import save_backbone\n"
        "from barlow_lab.specs.common import BackboneSpec\n"
        "spec = BackboneSpec(name='tiny'); net = build_backbone(spec, seed=0); print('ready', flush=True)\n"
        "while True: save_backbone(Path(sys.argv[1]), net, spec, details={})\n"
    )
    folder = tmp_path / "backbone"
    found = 0
    with subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            for turn in range(25):
                time.sleep(0.005 + turn * 0.0007)
                # Stopped, not killed: the next moment of the same writer costs no new process.
                os.kill(writer.pid, signal.SIGSTOP)
                os.waitid(os.P_PID, writer.pid, os.WSTOPPED)
                if folder.exists():
                    found += 1
                    load_backbone(folder)
                os.kill(writer.pid, signal.SIGCONT)
        finally:
            writer.kill()
    assert found > 3
    save_backbone(folder, build_backbone(TINY, seed=2), TINY, details={})
    assert [path.name for path in tmp_path.iterdir()] == ["backbone"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "missing weights", "missing config", "not json", "version"])
def test_damage_is_refused_with_a_remedy(folder, damage):
    weights, config = folder / "model.safetensors", folder / "config.json"
    data = bytearray(weights.read_bytes())
    if damage == "flip":
        data[-5] ^= 1
        weights.write_bytes(data)
    elif damage == "truncate":
        weights.write_bytes(data[:-100])
    elif damage == "missing weights":
        weights.unlink()
    elif damage == "missing config":
        config.unlink()
    elif damage == "not json":
        config.write_text(config.read_text()[:40])
    else:
        config.write_text(config.read_text().replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(ValueError, match="export it again"):
        load_backbone(folder)


def test_weights_of_another_architecture_are_refused(folder):
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"tiny"', '"resnet18"'))
    with pytest.raises(ValueError, match="does not fit resnet18"):
        load_backbone(folder)


def test_renamed_tensors_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    weights["other"] = weights.pop("layers.0.weight")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ValueError, match="published was"):
        load_backbone(folder)


def test_the_digest_is_of_names_types_shapes_and_bytes():
    base = {"a": torch.arange(6.0), "b": torch.ones(2, 3)}
    digest = backbone_digest(base)
    assert backbone_digest({"b": base["b"], "a": base["a"].clone()}) == digest
    changed = [
        {"a": base["a"], "c": base["b"]},
        {"a": base["b"], "b": base["a"]},
        {"a": base["a"].reshape(2, 3), "b": base["b"]},
        {"a": base["a"].double(), "b": base["b"]},
        {"a": base["a"].view(torch.int32), "b": base["b"]},
        {"a": base["a"] + 1, "b": base["b"]},
        {"a": base["a"]},
        {**base, "c": torch.tensor(1)},
        {**base, "c": torch.empty(0)},
    ]
    assert len({digest, *map(backbone_digest, changed)}) == 1 + len(changed)


def test_weights_of_no_end_are_refused_before_they_are_read(folder):
    weights = folder / "model.safetensors"
    os.truncate(weights, 1 << 40)
    with pytest.raises(ValueError, match=r"model.safetensors cannot be read .*it is larger than 17,179,869,184 bytes"):
        load_backbone(folder)
    weights.unlink()
    os.mkfifo(weights)
    with pytest.raises(ValueError, match=r"model.safetensors cannot be read .*it is a named pipe"):
        load_backbone(folder)
