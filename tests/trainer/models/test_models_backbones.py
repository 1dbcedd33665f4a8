"""Backbones and projectors: their shapes, their start, and what the catalogue says of them."""

import json
import subprocess
import sys
from importlib import resources

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from barlow_lab.specs import catalogue as published
from barlow_lab.specs.common import BackboneSpec
from trainer.data.registry import registered_data_sets
from trainer.models import catalogue
from trainer.models.backbones import build_backbone
from trainer.models.projector import WideLinear, build_projector


def spec(name="resnet18", **changes):
    return BackboneSpec.model_validate({"name": name, **changes})


@pytest.mark.parametrize(("name", "stem", "side", "features"), [
    ("tiny", "imagenet", 32, 128),
    ("tiny", "small", 8, 128),
    ("tiny_resnet", "imagenet", 64, 128),
    ("tiny_resnet", "small", 8, 128),
    ("resnet18", "imagenet", 64, 512),
    ("resnet18", "small", 16, 512),
    ("resnet50", "small", 8, 2048),
])  # fmt: skip
def test_features_of_images(name, stem, side, features):
    backbone = build_backbone(spec(name, stem=stem), seed=0)
    out = backbone(torch.rand(3, 3, side, side))
    assert out.shape == (3, features)
    assert backbone.feature_width == features
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters())


@pytest.mark.parametrize("name", ["tiny", "tiny_resnet", "resnet18", "vit_b_32", "shufflenet_v2_x0_5", "squeezenet1_1"])
def test_what_takes_a_forward_to_know_stands_in_the_catalogue(name):
    assert catalogue.backbone_entry(name) == published.backbones()[name]


def test_data_sets_stand_in_the_catalogue():
    entries = published.built_in_data_sets()
    assert set(entries) == set(registered_data_sets())
    assert {name: catalogue.data_set_entry(name) for name in entries} == entries


def test_files_of_torchvisions_weights_stand_in_the_catalogue():
    files = published.torchvision_files()
    assert files == catalogue.files_of_torchvision()
    assert files["ResNet50_Weights.IMAGENET1K_V2"] == "resnet50-11ad3fa6.pth"


def test_the_catalogue_holds_the_names_and_one_entry_a_line():
    text = resources.files("barlow_lab.specs").joinpath("catalogue.json").read_text("utf-8")
    assert tuple(json.loads(text)["backbones"]) == catalogue.NAMES
    lines = text.splitlines()
    assert all(
        any(line.startswith(f'  "{name}": {{') for line in lines)
        for name in (*catalogue.NAMES, *registered_data_sets())
    )


def test_activations_are_what_a_real_forward_keeps():
    """The figure against a count on real memory, with the batch's own statistics on top."""
    backbone = build_backbone(spec("tiny"), seed=0)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = backbone(torch.rand(2, 3, 224, 224))
    weights = {p.untyped_storage().data_ptr() for p in backbone.parameters()}
    total = sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in weights)
    assert output.requires_grad
    assert total / 2e6 == pytest.approx(published.backbones()["tiny"].activation_mb_per_view, rel=0.02)


@pytest.mark.parametrize(("name", "width"), [("resnet18", 64), ("tiny_resnet", 16)])
def test_the_small_stem_keeps_the_resolution(name, width):
    small, large = (build_backbone(spec(name, stem=stem), seed=0) for stem in ("small", "imagenet"))
    assert small.conv1.kernel_size == (3, 3)
    assert small.conv1.stride == (1, 1)
    images = torch.rand(2, 3, 32, 32)
    assert small.maxpool(small.conv1(images)).shape == (2, width, 32, 32)
    assert large.maxpool(large.conv1(images)).shape == (2, width, 8, 8)


@pytest.mark.parametrize("name", ["resnet18", "tiny_resnet"])
@pytest.mark.parametrize("zero", [True, False])
def test_residual_branches_start_at_zero_when_asked(name, zero):
    backbone = build_backbone(spec(name, zero_init_residual=zero), seed=0)
    assert all((block.bn2.weight == 0).all() == zero for block in backbone.layer1)


def test_the_tiny_resnet_is_taken_apart_as_torchvision_s_are():
    """The tensors of a ResNet-18 that has one block a layer: same names, same order, same ranks."""
    one_block = ResNet(BasicBlock, [1, 1, 1, 1])
    own = build_backbone(spec("tiny_resnet"), seed=0)
    expected = {name: tensor.ndim for name, tensor in one_block.state_dict().items() if not name.startswith("fc.")}
    assert list(expected.items()) == [(name, tensor.ndim) for name, tensor in own.state_dict().items()]
    maps = own.maxpool(own.relu(own.bn1(own.conv1(torch.rand(2, 3, 64, 64)))))
    for layer, shape in [("layer1", (16, 16)), ("layer2", (32, 8)), ("layer3", (64, 4)), ("layer4", (128, 2))]:
        maps = getattr(own, layer)(maps)
        assert maps.shape == (2, shape[0], shape[1], shape[1])


def test_tiny_needs_no_torchvision():
    """Importing it takes as long as importing torch."""
    code = (
        "import sys; from trainer.models.backbones import build_backbone; "
        "from barlow_lab.specs.common import BackboneSpec; build_backbone(BackboneSpec(name='tiny'), seed=0); "
        "assert 'torchvision' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["tiny", "tiny_resnet", "resnet18"])
def test_weights_come_from_the_seed_alone(name):
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = build_backbone(spec(name), seed=3).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(5)
    again, other = (build_backbone(spec(name), seed=seed).state_dict() for seed in (3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", ["tiny", "tiny_resnet"])
def test_the_backbone_starts_with_useful_magnitudes(name):
    features = build_backbone(spec(name, stem="small"), seed=0)(torch.randn(64, 3, 32, 32))
    assert 0.1 < features.std() < 2
    assert (features.std(dim=0) > 0).all()


def test_a_name_that_is_not_known_is_refused():
    unchecked = BackboneSpec.model_construct(name="resnet19", stem="imagenet", zero_init_residual=True)
    with pytest.raises(ValueError, match="did you mean 'resnet1"):
        build_backbone(unchecked, seed=0)


@pytest.mark.parametrize(("widths", "kinds"), [
    ([7], [WideLinear]),
    ([6, 7], [nn.Linear, nn.BatchNorm1d, nn.ReLU, WideLinear]),
    ([6, 5, 7], [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d, nn.ReLU, WideLinear]),
])  # fmt: skip
def test_projector_layers(widths, kinds):
    projector = build_projector(4, widths, seed=0)
    assert [type(layer) for layer in projector] == kinds
    assert all(layer.bias is None for layer in projector if isinstance(layer, nn.Linear))
    assert [layer.out_features for layer in projector if isinstance(layer, nn.Linear)] == widths
    assert projector(torch.randn(9, 4)).shape == (9, 7)


def test_the_papers_projector_has_151_million_parameters():
    with torch.device("meta"):
        projector = build_projector(2048, [8192, 8192, 8192], seed=0)
    assert sum(p.numel() for p in projector.parameters()) == 2048 * 8192 + 2 * 8192**2 + 4 * 8192


def test_projector_and_backbone_of_one_seed_are_unrelated():
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    first, again, other = (build_projector(8, [16, 16], seed=seed)[0].weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = build_backbone(spec("tiny"), seed=0).layers[0].weight.flatten()
    correlation = torch.corrcoef(torch.stack([first.flatten()[:128], weights[:128]]))[0, 1]
    assert abs(correlation) < 0.35
