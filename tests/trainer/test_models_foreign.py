"""Weights that others wrote: every form in circulation gives the source's features bit for bit, no other one any."""

from __future__ import annotations

import argparse
import itertools
import os
import pickle
import struct
import sys
import types
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from barlow_lab.specs import BackboneSpec
from trainer.models.backbones import build_backbone
from trainer.models.foreign import architecture_of, load_foreign
from trainer.models.foreign_files import read_tensors

TINY = BackboneSpec(name="tiny_resnet", stem="small")


def trained(network: nn.Module) -> nn.Module:
    """Weights and statistics that are nobody's initial ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        for tensor in itertools.chain(network.parameters(), network.buffers()):
            if tensor.is_floating_point():
                tensor.data.uniform_(0.01, 0.2)
    return network.eval()


@cache
def source() -> nn.Module:
    return trained(build_backbone(TINY, seed=1))


def weights() -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in source().state_dict().items()}


def prefixed(prefix: str, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in (weights() if state is None else state).items()}


def saved(folder: Path, value: Any, **options: Any) -> Path:
    path = folder / "weights.pth"
    torch.save(value, path, **options)
    return path


def loaded(path: Path, spec: BackboneSpec = TINY) -> nn.Module:
    return load_foreign(path, spec, lambda: None).module.eval()


def features(network: nn.Module, side: int = 16) -> Tensor:
    with torch.no_grad():
        return network(torch.linspace(-2, 2, 2 * 3 * side * side).view(2, 3, side, side))


HEAD = {"fc.weight": torch.ones(4, 128), "fc.bias": torch.ones(4)}
PROJECTOR = {"module.projector.0.weight": torch.ones(8, 128), "module.bn.running_var": torch.ones(8)}

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


def test_a_second_network_comes_before_the_heads_and_one_of_another_architecture_is_named_too(tmp_path: Path) -> None:
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


class Evil:
    """Makes a file when a pickle of it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


@pytest.mark.parametrize("how", ["torch.save", "torch.save, formerly", "pickle", "under a wrapper"])
def test_a_pickle_that_would_execute_something_is_refused_unopened(tmp_path: Path, how: str) -> None:
    evil = Evil(tmp_path / "executed")
    path = tmp_path / "weights.pth"
    if how == "pickle":
        path.write_bytes(pickle.dumps({"conv1.weight": evil}, protocol=2))
    else:
        value = {"state_dict": weights(), "args": evil} if how == "under a wrapper" else {**weights(), "x": evil}
        torch.save(value, path, _use_new_zipfile_serialization=how != "torch.save, formerly")
    with pytest.raises(ValueError, match=r"weights.pth holds .*mkdir beside .* is not opened") as refused:
        loaded(path)
    assert "weights_only" not in str(refused.value)
    assert not (tmp_path / "executed").exists()
    torch.load(path, weights_only=False) if how != "pickle" else pickle.loads(path.read_bytes())
    assert (tmp_path / "executed").exists()  # it would have been


def test_objects_beside_the_weights_are_refused_with_the_remedy(tmp_path: Path) -> None:
    path = saved(tmp_path, {"model": weights(), "args": argparse.Namespace(lr=1)})
    with pytest.raises(ValueError, match=r"holds argparse.Namespace beside tensors.*save its state_dict alone"):
        loaded(path)


@pytest.mark.parametrize("former", [False, True])
def test_a_learner_of_fastai_is_called_so_and_its_remedy_gives_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, former: bool
) -> None:
    module = types.ModuleType("fastai.learner")
    monkeypatch.setitem(sys.modules, "fastai", types.ModuleType("fastai"))
    monkeypatch.setitem(sys.modules, "fastai.learner", module)
    module.Learner = type("Learner", (), {"__module__": "fastai.learner"})  # type: ignore[attr-defined]
    learner = module.Learner()
    learner.model = nn.Sequential(nn.Sequential(*source().children()), nn.Linear(2, 2))
    path = tmp_path / "export.pkl"
    torch.save(learner, path, pickle_protocol=2, _use_new_zipfile_serialization=not former)
    with pytest.raises(ValueError, match=r"export.pkl is a Learner that fastai exported \(it holds fastai") as refused:
        loaded(path)
    assert "`torch.save(load_learner('export.pkl').model[0].state_dict(), 'body.pth')`" in str(refused.value)
    body = saved(tmp_path, learner.model[0].state_dict())
    assert torch.equal(features(loaded(body)), features(source()))


@pytest.mark.parametrize("former", [False, True])
@pytest.mark.parametrize("part", [0.0, 0.001, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, part: float, former: bool) -> None:
    path = saved(tmp_path, weights(), _use_new_zipfile_serialization=not former)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ValueError, match=r"weights.pth is damaged, or no file of .*; get it again"):
        loaded(path)


def test_truncated_safetensors_are_refused(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "w.safetensors")
    whole = (tmp_path / "w.safetensors").read_bytes()
    for part in (0, 4, len(whole) // 2, len(whole) - 1):
        (tmp_path / "w.safetensors").write_bytes(whole[:part])
        with pytest.raises(ValueError, match="get it again"):
            loaded(tmp_path / "w.safetensors")


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, weights())
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(tmp_path / "small.pth", "w", zipfile.ZIP_DEFLATED) as small:
        for entry in plain.namelist():
            small.writestr(entry, plain.read(entry))
    with pytest.raises(ValueError, match="compressed archive; unpack it"):
        loaded(tmp_path / "small.pth")


def test_an_archive_whose_list_of_parts_is_read_in_two_ways_is_refused(tmp_path: Path) -> None:
    """zipfile takes the list that ends where the end record begins, torch the one that the record names."""
    path = saved(tmp_path, weights())
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(tmp_path / "two.pth", "w", zipfile.ZIP_DEFLATED) as small:
        for entry in plain.namelist():
            small.writestr(entry, plain.read(entry))
    with zipfile.ZipFile(tmp_path / "two.pth") as small:
        parts = len(small.infolist())
        start, whole = small.start_dir, (tmp_path / "two.pth").read_bytes()
    listed, end = whole[start:-22], whole[-22:]
    stored, place = bytearray(listed), 0
    for _ in range(parts):
        stored[place + 10 : place + 12] = b"\0\0"
        place += 46 + sum(struct.unpack_from("<3H", listed, place + 28))
    (tmp_path / "two.pth").write_bytes(whole[:start] + listed + bytes(stored) + end)
    with zipfile.ZipFile(tmp_path / "two.pth") as seen:
        assert {entry.compress_type for entry in seen.infolist()} == {zipfile.ZIP_STORED}
    with pytest.raises(ValueError, match=r"no archive as torch\.save writes them"):
        loaded(tmp_path / "two.pth")


def test_an_archive_whose_parts_lie_over_one_another_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "one.pth", "w") as one:
        one.writestr("archive/data/0", bytes(10_000))
    whole = (tmp_path / "one.pth").read_bytes()
    start = struct.unpack_from("<L", whole, len(whole) - 6)[0]
    listed = whole[start:-22] * 16
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 16, 16, len(listed), start, 0)
    (tmp_path / "one.pth").write_bytes(whole[:start] + listed + end)
    with pytest.raises(ValueError, match=r"no archive as torch\.save writes them"):
        loaded(tmp_path / "one.pth")


def test_a_tensor_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, weights())
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "cut.pth", "w") as cut:
        for entry in whole.namelist():
            cut.writestr(entry, whole.read(entry)[:64] if "/data/" in entry else whole.read(entry))
    with pytest.raises(ValueError, match=r"cut.pth is damaged"):
        loaded(tmp_path / "cut.pth")


def test_a_file_beyond_all_measure_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, weights())
    monkeypatch.setattr("trainer.models.foreign_files.MAX_BYTES", path.stat().st_size - 1)
    with pytest.raises(ValueError, match="larger than 0 GiB"):
        loaded(path)


WEIGHT = {"weight": torch.ones(1, 1)}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([torch.ones(3)], "holds a list, not tensors by name"),
        (torch.ones(3), "holds a Tensor, not tensors by name"),
        ({"epoch": 3}, "no named tensors but epoch"),
        ({}, "no named tensors but nothing"),
        ({"model": {"a": torch.ones(1)}, "state_dict": {"a": torch.ones(1)}}, "under state_dict and model"),
        ({"student": {"a": torch.ones(1)}}, "no named tensors but student"),
        ({"online": WEIGHT, "target": WEIGHT | {}}, r"holds weights under online, target; save .*True\)\['online'\], "),
        ({"net": [torch.ones(1, 1), torch.ones(1)] * 2}, "under net; put them, which have no names there, into the"),
        ({"net": [WEIGHT]}, r"holds weights under net.0; save .*True\)\['net'\]\[0\], 'alone.pth'\)"),
    ],
)
def test_what_holds_no_weights_is_refused(tmp_path: Path, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        loaded(saved(tmp_path, value))


def test_a_key_that_holds_itself_twice_at_every_level_is_not_written_out(tmp_path: Path) -> None:
    key: Any = (1,)
    for _ in range(18):
        key = (key, key)
    torch.save({key: 1, "a" * 10_000: 2}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"no named tensors but a tuple, a{100}; save") as caught:
        read_tensors(tmp_path / "weights.pth")
    assert len(str(caught.value)) < 300


def test_a_mapping_that_holds_itself_is_refused(tmp_path: Path) -> None:
    value: dict[str, Any] = {}
    value["model"] = value
    with pytest.raises(ValueError, match="below 4 wrappers or more"):
        loaded(saved(tmp_path, value))


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
