"""torchvision's classification networks as backbones: one of each family, and all of them by their sizes."""

import pytest
import torch
import torchvision
from torch import nn

from barlow_lab.specs import BackboneSpec
from barlow_lab.specs import catalogue as published
from trainer.models.backbones import build_backbone, empty_backbone
from trainer.models.catalogue import NAMES
from trainer.models.classifiers import CLASSIFIERS, is_resnet
from trainer.models.dropout import drawing_layers
from trainer.models.exported import backbone_digest, load_backbone, save_backbone
from trainer.optim.groups import parameter_groups
from trainer.runtime.batch_norm import RunningStatistics, synchronise_batch_norm

ONE_OF_EACH = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "maxvit_t", "mnasnet0_5",
    "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5",
    "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11", "vgg11_bn", "vit_b_16",
)  # fmt: skip
CHEAP = ("efficientnet_b0", "mnasnet0_5", "shufflenet_v2_x0_5", "squeezenet1_1", "regnet_y_400mf", "googlenet")


def side_of(name):
    return published.backbones()[name].smallest_image


def test_every_classification_network_of_torchvision_stands_in_the_catalogue():
    assert len(CLASSIFIERS) >= 80
    for name in NAMES:
        entry, backbone = published.backbones()[name], empty_backbone(BackboneSpec(name=name))
        assert sum(p.numel() for p in backbone.parameters()) == entry.parameters, name
        assert backbone.feature_width == entry.features, name
        assert entry.zero_init_residual == (name == "tiny_resnet" or (name != "tiny" and is_resnet(name))), name
        assert (entry.small_stem is not None) == (name == "tiny" or entry.zero_init_residual), name
        assert not drawing_layers(backbone), name
        for module in backbone.modules():  # what is passed to a functional dropout
            assert not getattr(module, "attention_dropout", 0.0), name
            assert not getattr(module, "drop_rate", 0.0), name
            assert isinstance(getattr(module, "dropout", 0.0), nn.Module) or not getattr(module, "dropout", 0.0), name


@pytest.mark.parametrize("name", [n for n in ONE_OF_EACH if not n.startswith("regnet")])
def test_features_are_what_entered_the_layer_of_the_class_logits(name):
    """Against the whole network of torchvision, whose classifier is caught at work. (Its constructor of a RegNet does
    not run on the meta device.)"""
    side = side_of(name)
    images = torch.empty(2, 3, side, side, device="meta")
    backbone = empty_backbone(BackboneSpec(name=name))
    assert backbone.train()(images).shape == (2, backbone.feature_width)
    arguments = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    with torch.device("meta"):
        whole = torchvision.models.get_model(name, weights=None, **arguments)
    fed = {}
    for module in whole.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.register_forward_hook(lambda module, given, out: fed.update(shape=given[0].shape, of=module))
    whole(images)
    assert fed["shape"][1] == backbone.feature_width, "the last layer at work made the logits"
    kept = sum(p.numel() for p in whole.parameters()) - sum(p.numel() for p in fed["of"].parameters())
    assert sum(p.numel() for p in backbone.parameters()) == kept


@pytest.mark.parametrize("name", [n for n in ONE_OF_EACH if side_of(n) > 8])
def test_an_image_that_the_catalogue_refuses_does_not_fit(name):
    entry, backbone = published.backbones()[name], empty_backbone(BackboneSpec(name=name))
    sides = (192, 256) if entry.image_size else (entry.smallest_image - 1,)
    for side in sides:
        with pytest.raises((RuntimeError, AssertionError)):
            backbone(torch.empty(2, 3, side, side, device="meta"))


@pytest.mark.parametrize("name", CHEAP)
def test_it_trains_on_real_images_and_draws_nothing(name):
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    backbone = build_backbone(BackboneSpec(name=name), seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    again = build_backbone(BackboneSpec(name=name), seed=3)
    assert backbone_digest(again.state_dict()) == backbone_digest(backbone.state_dict())

    side = max(32, side_of(name))
    images = torch.rand(4, 3, side, side)
    before = torch.random.get_rng_state()
    features = backbone.train()(images)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert features.shape == (4, backbone.feature_width)
    assert torch.equal(again.train()(images), features)
    features.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters())


@pytest.mark.parametrize("name", ["mnasnet0_5", "shufflenet_v2_x0_5", "densenet121"])
def test_it_is_published_and_loaded(tmp_path, name):
    spec = BackboneSpec(name=name)
    backbone = build_backbone(spec, seed=1).eval()
    save_backbone(tmp_path / "backbone", backbone, spec, details={})
    loaded = load_backbone(tmp_path / "backbone")
    assert backbone_digest(loaded.state_dict()) == backbone_digest(backbone.state_dict())
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(loaded(images), backbone(images))
    # As a checkpoint holds it: a part of a larger state dict, a plain dict of tensors.
    state = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
    nn.ModuleDict({"backbone": build_backbone(spec, seed=2)}).load_state_dict(state)


def test_weights_keep_torchvisions_names():
    """So that what is published goes into torchvision's own network, for detection say."""
    for name in ("resnet18", "densenet121", "vit_b_32"):
        with torch.device("meta"):
            whole = torchvision.models.get_model(name, weights=None).state_dict()
        missing = set(whole) - set(empty_backbone(BackboneSpec(name=name)).state_dict())
        assert {key.rpartition(".")[0] for key in missing} <= {"fc", "classifier", "heads.head"}


@pytest.mark.parametrize(("name", "others"), [
    # A block of ViT: 4 matrices and 4 biases, 2 norms of 2; class token, positions, patches' bias, the last norm.
    ("vit_b_16", {"tensors": 12 * 8 + 5, "matrices": 12 * 4 + 1}),
    # A block of ConvNeXt: 3 matrices and 3 biases, a norm of 2, its scale; stem, 3 halvings with a norm, last norm.
    ("convnext_tiny", {"tensors": 18 * 6 + 3 + 3 * 3 + 2, "matrices": 18 * 3 + 1 + 3}),
])  # fmt: skip
def test_parameter_groups_of_networks_without_batch_normalisation(name, others):
    backbone = empty_backbone(BackboneSpec(name=name))
    groups = parameter_groups(backbone)
    counts = groups.counts()
    assert counts["matrices"]["tensors"] == others["matrices"]
    assert counts["others"]["tensors"] == others["tensors"]
    names = {id(p): key for key, p in backbone.named_parameters()}
    matrices = {names[id(p)] for p in groups.matrices}
    assert all(key.endswith("weight") for key in matrices)
    assert all(key in matrices for key in names.values() if key.endswith("in_proj_weight"))
    for said in ("class_token", "pos_embedding", "layer_scale", "ln_1.weight", "in_proj_bias"):
        assert not any(key.endswith(said) for key in matrices)


def test_a_network_without_batch_normalisation_has_nothing_to_synchronise():
    backbone = build_backbone(BackboneSpec(name="convnext_tiny"), seed=0)
    assert synchronise_batch_norm(backbone) is backbone
    statistics = RunningStatistics(backbone)
    before = statistics.flat.clone()
    assert before.numel() == 0
    statistics.restore_unless(torch.tensor(False), before)
    assert RunningStatistics(empty_backbone(BackboneSpec(name="convnext_tiny"))).flat.is_meta, "where the model is"
