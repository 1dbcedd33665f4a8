"""Weights that others wrote: every form in circulation gives the source's features bit for bit, no other one any."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import torchvision
from foreign_weights import HEAD, PROJECTOR, TINY, features, loaded, prefixed, saved, source, trained, weights
from safetensors.torch import save_file
from torch import Tensor, nn

from barlow_lab.specs import BackboneSpec
from trainer.models.backbones import build_backbone
from trainer.models.foreign import architecture_of, load_foreign

FORMS = {
    "torchvision": lambda: weights() | HEAD,
    "the reference's resnet50.pth": weights,
    "the reference's checkpoint.pth": lambda: {
        "epoch": 3,
        "model": prefixed("module.backbone.") | PROJECTOR,
        "optimizer": {"state": {0: {"mu": torch.ones(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    },
    "MoCo": lambda: {
        "epoch": 200,
        "arch": "resnet50",
        "state_dict": prefixed("module.encoder_q.", weights() | HEAD)
        | prefixed("module.encoder_k.")
        | {"module.queue": torch.ones(128, 9)},
    },
    "MoCo v3": lambda: {"state_dict": prefixed("module.base_encoder.") | prefixed("module.momentum_encoder.")},
    "VICReg": lambda: {"model": prefixed("module.backbone.") | PROJECTOR},
    "solo-learn": lambda: {
        "state_dict": prefixed("backbone.") | prefixed("momentum_backbone.") | {"classifier.weight": torch.ones(3)}
    },
    "lightly": lambda: {"state_dict": prefixed("backbone.", numbered(weights())) | PROJECTOR},
    "DINO": lambda: {"student": prefixed("module.backbone."), "teacher": prefixed("backbone."), "epoch": 1},
    "SimSiam": lambda: {"state_dict": prefixed("module.encoder.", weights() | HEAD)},
    "compiled": lambda: prefixed("module._orig_mod."),
    "a checkpoint of ours": lambda: {"model": prefixed("backbone.") | {"projector.0.weight": torch.ones(3)}},
}


def numbered(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names as nn.Sequential(*network.children()) gives them."""
    names = nn.Sequential(*source().children()).state_dict().keys()
    return dict(zip(names, state.values(), strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_features_of_the_source_bit_for_bit(tmp_path: Path, form: str) -> None:
    network = loaded(saved(tmp_path, FORMS[form]()))
    assert torch.equal(features(network), features(source()))
    assert all(torch.equal(t, source().state_dict()[name]) for name, t in network.state_dict().items())


def test_safetensors_and_the_former_format_of_torch_are_read_too(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "w.safetensors")
    former = saved(tmp_path, weights(), _use_new_zipfile_serialization=False)
    for path in (tmp_path / "w.safetensors", former):
        assert torch.equal(features(loaded(path)), features(source()))


def test_a_network_of_torchvision_gives_what_its_last_layer_is_given(tmp_path: Path) -> None:
    network = trained(torchvision.models.resnet18())
    path = saved(tmp_path, network.state_dict())
    network.fc = nn.Identity()
    found = load_foreign(path, BackboneSpec(name="resnet18"), lambda: None)
    assert torch.equal(features(found.module.eval(), 32), features(network, 32))
    assert found.dropped == ["fc.weight", "fc.bias"]


def test_hidden_layers_before_the_classifier_are_kept(tmp_path: Path) -> None:
    network = trained(torchvision.models.mobilenet_v3_small())
    path = saved(tmp_path, network.state_dict())
    network.classifier[3] = nn.Identity()
    found = load_foreign(path, BackboneSpec(name="mobilenet_v3_small"), lambda: None)
    assert torch.equal(features(found.module.eval(), 32), features(network, 32))
    assert found.dropped == ["classifier.3.weight", "classifier.3.bias"]


def test_googlenet_scales_its_pixels_as_torchvision_has_it_with_weights(tmp_path: Path) -> None:
    network = trained(torchvision.models.googlenet(transform_input=True, aux_logits=True, init_weights=False))
    path = saved(tmp_path, network.state_dict())
    network.fc = nn.Identity()
    found = load_foreign(path, BackboneSpec(name="googlenet"), lambda: None)
    assert torch.equal(features(found.module.eval(), 64), features(network, 64))
    assert all(name.startswith(("aux1.", "aux2.", "fc.")) for name in found.dropped)
    network.transform_input = False
    assert not torch.equal(features(found.module.eval(), 64), features(network, 64))


@pytest.mark.parametrize(
    ("name", "formerly"),
    [
        ("densenet121", {"denselayer1.norm1.": "denselayer1.norm.1.", "denselayer9.conv2.": "denselayer9.conv.2."}),
        ("vit_b_32", {"layer_0.mlp.0.": "layer_0.mlp.linear_1.", "layer_7.mlp.3.": "layer_7.mlp.linear_2."}),
    ],
)
def test_names_that_torchvision_wrote_formerly_are_known(tmp_path: Path, name: str, formerly: dict[str, str]) -> None:
    network = build_backbone(BackboneSpec(name=name), seed=5)
    state = network.state_dict()
    for today, former in formerly.items():
        renamed = {key.replace(today, former): value for key, value in state.items()}
        assert renamed.keys() != state.keys()
        state = renamed
    found = loaded(saved(tmp_path, state), BackboneSpec(name=name)).state_dict()
    assert all(torch.equal(value, found[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {n: t.to(dtype) if t.is_floating_point() else t for n, t in weights().items()}
    found = loaded(saved(tmp_path, state)).state_dict()
    assert all(t.dtype in (torch.float32, torch.int64) for t in found.values())
    assert all(torch.equal(found[n], t.float() if t.is_floating_point() else t) for n, t in state.items())


def test_counters_of_batch_normalisation_may_be_missing(tmp_path: Path) -> None:
    state = {n: t for n, t in weights().items() if not n.endswith("num_batches_tracked")}
    assert len(state) < len(weights())
    assert torch.equal(features(loaded(saved(tmp_path, state))), features(source()))


@pytest.mark.parametrize("to", [Tensor.half, Tensor.bool, lambda one: one.view(1), lambda one: one * 1j])
def test_counters_of_any_type_or_shape_are_no_fault(tmp_path: Path, to: Callable[[Tensor], Tensor]) -> None:
    """As those of `{name: tensor.half() for name, tensor in state.items()}`."""
    state = {n: to(t) if n.endswith("num_batches_tracked") else t for n, t in weights().items()}
    found = load_foreign(saved(tmp_path, state), TINY, lambda: None)
    assert found.dropped == []
    assert torch.equal(features(found.module.eval()), features(source()))


def test_what_is_left_out_is_listed(tmp_path: Path) -> None:
    found = load_foreign(saved(tmp_path, FORMS["MoCo"]()), TINY, lambda: None)
    heads = {n for n in found.dropped if not n.startswith("module.encoder_k.")}
    assert heads == {"module.encoder_q.fc.weight", "module.encoder_q.fc.bias", "module.queue"}
    assert len(found.dropped) == len(weights()) + 3


def other() -> dict[str, Tensor]:
    return {name: tensor + 1 for name, tensor in weights().items()}


TWO = {
    "model": lambda: {"model": weights(), "model_ema": other()},
    "state_dict": lambda: {"state_dict": weights(), "state_dict_ema": prefixed("module.", other()), "epoch": 3},
    "teacher.module": lambda: {"student": prefixed("backbone.", other()), "teacher": prefixed("module.")},
    "the top of the file": lambda: weights() | {"ema": {"decay": 0.9, "shadow": other()}},
    "model.state_dict": lambda: {"model": {"state_dict": weights()}, "averages": [other()]},
    "state_dict.module.encoder_q": lambda: {
        "state_dict": prefixed("module.encoder_q.") | prefixed("module.encoder_k.", other())
    },
    "backbone": lambda: prefixed("backbone.") | prefixed("momentum_backbone.", numbered(other())),
}


@pytest.mark.parametrize("under", TWO)
def test_a_second_network_is_named_and_the_remedy_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, under: str
) -> None:
    value = TWO[under]() | {"optimizer": {"state": {0: {"mu": torch.ones(3, 3)}}, "param_groups": [{"lr": 0.1}]}}
    found = load_foreign(saved(tmp_path, value), TINY, lambda: None)
    assert torch.equal(features(found.module.eval()), features(source()))
    places = {
        "model": "model_ema",
        "state_dict": "state_dict_ema",
        "teacher.module": "student",
        "the top of the file": "ema.shadow",
        "model.state_dict": "averages.0",
        "state_dict.module.encoder_q": "state_dict.module.encoder_k",
        "backbone": "momentum_backbone",
    }
    assert (found.under, found.others) == (under, {places[under]: len(weights())})
    assert len(found.dropped) == len(weights())
    monkeypatch.chdir(tmp_path)
    exec(found.remedy.split("`")[1], {"torch": torch})
    taken = load_foreign(tmp_path / "alone.pth", TINY, lambda: None)
    assert torch.equal(taken.module.state_dict()["conv1.weight"], other()["conv1.weight"])
    assert taken.others == {}


def test_a_second_network_comes_before_heads_and_another_architecture_is_named(tmp_path: Path) -> None:
    head = {"0.weight": torch.ones(2, 2)}
    large = build_backbone(BackboneSpec(name="tiny"), seed=0).state_dict()
    found = load_foreign(saved(tmp_path, {"head": head, "net": large, "model": weights(), "ema": other()}), TINY, int)
    assert list(found.others) == ["ema", "head", "net"]
    averages = {"decay": 0.9, "shadow_params": list(source().parameters())}
    found = load_foreign(saved(tmp_path, {"model": weights(), "ema": averages}), TINY, lambda: None)
    assert found.others == {"ema.shadow_params": len(list(source().parameters()))}
    assert found.remedy.startswith("put them, which have no names there, into the network")
    with pytest.raises(ValueError, match=r"is not tiny_resnet .*; student of the file was not looked at"):
        loaded(saved(tmp_path, {"teacher": large, "student": weights()}))


def test_no_state_of_an_optimiser_no_features_and_no_masks_are_told_as_more_weights(tmp_path: Path) -> None:
    sides = [torch.ones(4, 4), torch.ones(3, 3)]  # as SOAP and Shampoo keep of each side of a weight
    state = {
        "model": weights(),
        "optimizer": {"state": {n: {"GG": sides, "Q": sides, "step": 1} for n in range(9)}, "param_groups": []},
        "bank": [torch.ones(8, 16), torch.ones(4, 16), torch.ones(12)],
        "masks": {name: tensor > 0 for name, tensor in weights().items()},
    }
    found = load_foreign(saved(tmp_path, state), TINY, lambda: None)
    assert (found.others, found.dropped, found.remedy) == ({}, [], "")
    del state["model"]
    with pytest.raises(ValueError, match="holds weights under bank;"):  # what else could be meant
        loaded(saved(tmp_path, state))


def test_two_prefixes_under_which_all_is_found_are_not_guessed_between(tmp_path: Path) -> None:
    path = saved(tmp_path, prefixed("backbone.") | prefixed("encoder."))
    with pytest.raises(ValueError, match=r"there twice, under 'backbone.' and 'encoder.'; save those that you mean"):
        loaded(path)


def test_a_prefix_that_is_not_in_circulation_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"missing: conv1.weight, .*names begin with momentum_encoder: save the"):
        loaded(saved(tmp_path, prefixed("momentum_encoder.")))


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    state = prefixed("module.")
    del state["module.layer3.0.conv2.weight"]
    with pytest.raises(ValueError, match=r"not tiny_resnet with stem: small: missing: module.layer3.0.conv2.weight;"):
        loaded(saved(tmp_path, state))


# torch warns that it looks at every number of a sparse tensor.
@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants:UserWarning")
@pytest.mark.parametrize(
    ("to", "said"),
    [
        (lambda one: one.to(torch.int8), "int8"),
        (lambda one: one.to(torch.complex64), "complex64"),
        (Tensor.to_sparse, "sparse_coo float32"),
    ],
)
def test_a_tensor_of_another_type_is_refused(tmp_path: Path, to: Callable[[Tensor], Tensor], said: str) -> None:
    state = weights() | {"conv1.weight": to(weights()["conv1.weight"])}
    with pytest.raises(ValueError, match=f"of another type: conv1.weight {said}; save them as floating-point numbers"):
        loaded(saved(tmp_path, state))


def test_a_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"of another shape: conv1.weight \(1000, 1000\) for \("):
        loaded(saved(tmp_path, weights() | {"conv1.weight": torch.ones(1).expand(1000, 1000)}))


@pytest.mark.parametrize("name", ["layer4.0.bn2.running_var", "conv1.weight"])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, name: str) -> None:
    state = weights()
    state[name].view(-1)[1] = float("nan")
    with pytest.raises(ValueError, match=f"{name} hold numbers that are not finite"):
        loaded(saved(tmp_path, state))


def test_another_stem_is_named_as_the_architecture_that_fits(tmp_path: Path) -> None:
    path = saved(tmp_path, prefixed("module.") | PROJECTOR)
    with pytest.raises(
        ValueError, match=r"shape: module.conv1.weight .*set backbone to \{name: tiny_resnet, stem: small\}"
    ):
        loaded(path, BackboneSpec(name="tiny_resnet"))
    assert architecture_of(path, lambda: None) == TINY


def test_a_deeper_network_is_not_taken_for_the_shallow_one_whose_layers_it_has(tmp_path: Path) -> None:
    path = saved(tmp_path, torchvision.models.resnet34().state_dict())
    said = r"is not resnet18: unexpected: layer1.2.conv1.weight, .* and \d+ more; .*set backbone to \{name: resnet34\}"
    with pytest.raises(ValueError, match=said):
        loaded(path, BackboneSpec(name="resnet18"))


def test_weights_of_no_known_network_fit_none(tmp_path: Path) -> None:
    assert architecture_of(saved(tmp_path, {"a.weight": torch.ones(3)}), lambda: None) is None
