"""A backbone of one's own: from an installed distribution's entry point to a published backbone that is judged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import runs
import torch
from distributions import put_on_path

from barlow_lab.specs import BackboneSpec, KnnSpec, SpecError
from barlow_lab.specs.registered import BACKBONES
from trainer.evaluation.backbone import open_backbone
from trainer.failures import BadSpec, of_exception
from trainer.models.backbones import build_backbone, empty_backbone
from trainer.models.exported import backbone_digest, load_backbone
from trainer.pretraining import pretrain

NETWORK = """
from torch import nn

class Patches(nn.Module):
    "No batch normalisation: patches of 4 px, attention between them, their mean."
    feature_width = 16

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm = nn.LayerNorm(16)

    def forward(self, images):
        assert images.shape[-1] == 12, "12 px, please"
        tokens = self.norm(self.patches(images).flatten(2).transpose(1, 2))
        return self.norm(tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]).mean(1)

def no_module():
    return 3

def no_width():
    return nn.Linear(3, 3)

def with_dropout():
    network = Patches()
    network.attention.dropout = 0.1
    network.late = nn.Sequential(nn.Dropout(0.5))
    return network

def maps():
    network = nn.Identity()
    network.feature_width = 3
    return network

class ForgetsToTrain(Patches):
    "Fails as it is trained; has a normalisation, and weights of five dimensions."

    def __init__(self):
        super().__init__()
        self.batch_norm = nn.BatchNorm1d(16)
        self.volume = nn.Conv3d(1, 1, 1)
        self.fails = True

    def forward(self, images):
        assert not (self.training and self.fails), "no gradient for you"
        return self.volume(self.batch_norm(super().forward(images))[None, None, None])[0, 0, 0]

class Volumes(ForgetsToTrain):
    def __init__(self):
        super().__init__()
        self.fails = False

class Draws(Patches):
    def forward(self, images):
        return nn.functional.dropout(super().forward(images), 0.5, self.training)

def broken():
    raise RuntimeError("no weights for you")
"""
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a distribution with the given entry points on the path."""

    def put(module: str, **entries: str) -> None:
        put_on_path(monkeypatch, tmp_path, module, NETWORK, BACKBONES, entries)

    return put


def test_it_is_pretrained_published_and_judged_like_any_other(install: Install, tmp_path: Path) -> None:
    install("own_patches", patches="Patches")
    spec = runs.spec(backbone={"name": "patches"}, projector={"widths": [8]}, epochs=1)
    context = runs.context(tmp_path / "run")
    outcome = pretrain(spec, context)
    assert outcome.result is not None
    assert outcome.result["backbone"]["features"] == 16
    counted = runs.events(tmp_path / "run", kind="started")[0].data["parameter_groups"]
    assert counted["matrices"]["tensors"] == 3 + 1, "patches, attention in and out, projector"
    assert counted["others"]["tensors"] == 5, "three biases and the norm"

    folder = context.attempt_folder / "backbone"
    loaded = load_backbone(folder)
    assert backbone_digest(loaded.state_dict()) == outcome.result["backbone"]["sha256"]
    assert json.loads((folder / "config.json").read_text())["features"] == 16
    untrained = build_backbone(spec.backbone, seed=spec.seed)
    assert backbone_digest(untrained.state_dict()) != backbone_digest(loaded.state_dict())

    judging = {"kind": "knn", "data": "digits", "backbone_from": {"job": "p"}, "images": {"size": 12, "resize": 12}}
    context.inputs = {"backbone": {"path": str(folder)}}
    assert open_backbone(KnnSpec.model_validate(judging), context).digest == outcome.result["backbone"]["sha256"]
    other = KnnSpec.model_validate({**judging, "images": {"size": 16, "resize": 16}})
    with pytest.raises(BadSpec, match=r"no image of 16 px \(12 px, please\)"):
        open_backbone(other, context)


def test_its_weights_come_from_the_seed(install: Install) -> None:
    install("own_seeded", seeded="Patches")
    spec = BackboneSpec(name="seeded")
    before = torch.random.get_rng_state()
    first, again, other = (backbone_digest(build_backbone(spec, seed=s).state_dict()) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first == again != other
    assert next(empty_backbone(spec).parameters()).is_meta


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("no_module", "gives a int"),
        ("no_width", "no attribute feature_width"),
        ("with_dropout", "dropout, which makes a curve depend on the ranks: attention, late.0"),
        ("broken", "RuntimeError: no weights for you"),
        ("not_there", "has no attribute 'not_there'"),
    ],
)
def test_what_is_no_backbone_is_a_bad_spec(install: Install, place: str, said: str) -> None:
    install(f"own_{place}", faulty=place)
    with pytest.raises(SpecError, match=r"backbone 'faulty' \(own_") as caught:
        build_backbone(BackboneSpec(name="faulty"), seed=0)
    assert said in str(caught.value)
    assert of_exception(caught.value).outcome == "bad_spec"


@pytest.mark.parametrize(
    ("place", "side", "said"),
    [
        ("Patches", 16, r"takes no images of 16 px in evaluation \(12 px, please\)"),
        ("ForgetsToTrain", 12, r"takes no images of 12 px in training \(no gradient for you\)"),
        ("Draws", 12, "draws random numbers in its forward pass"),
        ("maps", 12, r"shape \(1, 3, 12, 12\)"),
    ],
)
def test_it_is_tried_on_images_before_a_run_begins(install: Install, place: str, side: int, said: str) -> None:
    install(f"own_tried_{place}", tried=place)
    with pytest.raises(SpecError, match=said):
        build_backbone(BackboneSpec(name="tried"), seed=0, side=side)
    assert build_backbone(BackboneSpec(name="tried"), seed=0).training


def test_a_probe_s_images_are_tried_on_it_as_well(install: Install, tmp_path: Path) -> None:
    install("own_probed", probed="Patches")
    run = {"record": {"probes": {"limit": 70, "k": 5, "size": 16}}}
    spec = runs.spec(backbone={"name": "probed"}, projector={"widths": [8]}, run=run)
    with pytest.raises(BadSpec, match=r"probes.size: the backbone takes no image of 16 px \(12 px, please\)"):
        pretrain(spec, runs.context(tmp_path))


def test_the_trial_leaves_no_trace_and_weights_may_have_five_dimensions(install: Install, tmp_path: Path) -> None:
    install("own_volumes", volumes="Volumes")
    tried, untried = (build_backbone(BackboneSpec(name="volumes"), seed=0, side=side) for side in (12, None))
    assert runs.same(tried.state_dict(), untried.state_dict())
    spec = runs.spec(backbone={"name": "volumes"}, projector={"widths": [8]}, epochs=1, precision="bf16")
    assert pretrain(spec, runs.context(tmp_path / "run")).outcome == "ok"


def test_a_name_of_the_catalogue_is_the_catalogue_s(install: Install) -> None:
    install("own_resnet18", resnet18="Patches")
    assert empty_backbone(BackboneSpec(name="resnet18")).feature_width == 512


def test_of_two_of_one_name_the_first_on_the_path_is_taken(install: Install) -> None:
    install("own_second", twice="no_module")
    install("own_first", twice="Patches")
    assert build_backbone(BackboneSpec(name="twice"), seed=0).feature_width == 16
