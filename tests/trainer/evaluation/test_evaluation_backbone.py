"""Where an evaluation's backbone comes from: what the result says of it, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import runs
import torch
import torchvision
from foreign_weights import HEAD, PROJECTOR, TINY, prefixed, saved, source, weights
from torch import nn

from barlow_lab import run_folder as folders
from barlow_lab.specs import BackboneJudged, BackboneSpec, DetectionSpec, KnnSpec, SpecError, parse_spec
from trainer import by_hand
from trainer.data.pixels import PIXEL_MEAN, PIXEL_STD
from trainer.evaluation import run_evaluation
from trainer.evaluation.backbone import FrozenBackbone, open_backbone
from trainer.failures import BadSpec
from trainer.models import torchvision_weights
from trainer.models.exported import backbone_digest, save_backbone
from trainer.runtime.checkpoints import write_checkpoint

RESNET = "ResNet18_Weights.IMAGENET1K_V1"


def knn(backbone_from: dict[str, Any], backbone: BackboneSpec | None = None, size: int = 32) -> BackboneJudged:
    fields = {"backbone": None if backbone is None else backbone.model_dump(), "images": {"size": size}}
    spec = parse_spec({"kind": "knn", "data": "digits", "backbone_from": backbone_from, **fields})
    assert isinstance(spec, KnnSpec)
    return spec


def opened(folder: Path, spec: BackboneJudged, resolved: dict[str, str] | None) -> FrozenBackbone:
    context = runs.context(folder / "run", attempt=1 + len(list(folder.glob("run/attempts/*"))))
    context.inputs["backbone"] = resolved
    return open_backbone(spec, context)


def warnings(folder: Path) -> list[str]:
    """What all that was opened there has warned of."""
    attempts = sorted(folders.attempt_folders(folder / "run"))
    return [e.data["message"] for attempt in attempts for e in runs.events(folder / "run", attempt, kind="warning")]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_opened_with_its_digests_and_what_was_left_out(tmp_path: Path) -> None:
    path = saved(tmp_path, {"model": prefixed("module.backbone.") | PROJECTOR})
    found = opened(tmp_path, knn({"file": "reference/checkpoint.pth"}, TINY), {"file": str(path)})
    assert found.source == {
        "file": "reference/checkpoint.pth",
        "name": "tiny_resnet",
        "read": path.name,
        "sha256": sha256(path),
        "left_out": {"tensors": 2, "names": list(PROJECTOR)},
    }
    assert (found.digest, found.architecture) == (backbone_digest(weights()), TINY)
    assert not found.module.training
    (warning,) = runs.events(tmp_path / "run", kind="warning")
    assert "2 tensors of weights.pth are no part of tiny_resnet with stem: small" in warning.data["message"]
    assert warning.data["names"] == list(PROJECTOR)
    assert (
        "left_out" not in opened(tmp_path, knn({"file": "w"}, TINY), {"file": str(saved(tmp_path, weights()))}).source
    )


def test_many_tensors_left_out_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    path = saved(tmp_path, weights() | {f"queue{n}": torch.ones(1) for n in range(30)})
    found = opened(tmp_path, knn({"file": "w.pth"}, TINY), {"file": str(path)})
    assert found.source["left_out"] == {"tensors": 30, "names": [f"queue{n}" for n in range(20)]}


def test_a_file_of_two_networks_says_in_the_result_and_in_a_warning_which_was_taken(tmp_path: Path) -> None:
    path = saved(tmp_path, {"model": weights(), "model_ema": prefixed("module.")})
    found = opened(tmp_path, knn({"file": "w.pth"}, TINY), {"file": str(path)})
    count = len(weights())
    assert found.source["under"] == "model"
    names = [f"model_ema.module.{name}" for name in weights()]
    assert found.source["left_out"] == {"tensors": count, "names": names[:20], "others": {"model_ema": count}}
    assert warnings(tmp_path)[1:] == [
        f"weights.pth holds more weights than those under model, which are judged; left out are {count} tensors "
        "under model_ema. For one of these save those that you mean alone, as by `torch.save(torch.load('weights.pth', "
        "'cpu', weights_only=True)['model_ema'], 'alone.pth')`, and judge that file"
    ]


def test_bare_weights_need_an_architecture_and_the_one_that_fits_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path, weights())
    with pytest.raises(BadSpec, match=r"holds weights alone: add .* \(they fit tiny_resnet with stem: small\)"):
        opened(tmp_path, knn({"file": "w.pth"}), {"file": str(path)})
    path = saved(tmp_path, {"x": torch.ones(1)})
    with pytest.raises(BadSpec, match=r"\(for example backbone: \{name: resnet50\}\)"):
        opened(tmp_path, knn({"file": "w.pth"}), {"file": str(path)})
    with pytest.raises(BadSpec, match=r"weights.pth is not tiny_resnet.*missing"):
        opened(tmp_path, knn({"file": "w.pth"}, TINY), {"file": str(path)})
    with pytest.raises(BadSpec, match=r"give --backbone PATH"):
        opened(tmp_path, knn({"file": "w.pth"}, TINY), None)


def test_published_and_checkpoint_folders_by_file_bring_their_own_architecture(tmp_path: Path) -> None:
    save_backbone(tmp_path / "ours", source(), TINY, details={})
    spec = runs.spec(backbone=TINY.model_dump())
    context = runs.context(tmp_path / "pretraining")
    state = {"model": prefixed("backbone.") | {"projector.weight": torch.ones(2)}}
    folder = write_checkpoint(context, state, step=3, epoch=1, spec=spec.resolved(), spec_digest="d",
                              policy=spec.run.checkpoint, milestone=False, metrics={})  # fmt: skip
    for resolved, step in (({"path": str(tmp_path / "ours")}, {}), ({"checkpoint": str(folder)}, {"step": 3})):
        for named in (None, TINY):
            found = opened(tmp_path, knn({"file": "ours"}, named), resolved)
            read = Path(*resolved.values()).name
            assert (found.architecture, found.source) == (TINY, {"file": "ours", "read": read, **step})
            assert found.digest == backbone_digest(weights())
        with pytest.raises(BadSpec, match=r"is tiny_resnet with stem: small and says so itself; leave backbone out"):
            opened(tmp_path, knn({"file": "ours"}, BackboneSpec(name="tiny_resnet")), resolved)


def test_the_step_that_a_spec_selects_is_its_backbone_s_and_in_the_result(tmp_path: Path) -> None:
    spec = runs.spec(backbone=TINY.model_dump())
    folder = write_checkpoint(runs.context(tmp_path / "pretraining"), {"model": prefixed("backbone.")}, step=2, epoch=1,
                              spec=spec.resolved(), spec_digest="d", policy=spec.run.checkpoint, milestone=False,
                              metrics={})  # fmt: skip
    save_backbone(tmp_path / "ours", source(), TINY, details={"step": 2})
    save_backbone(tmp_path / "older", source(), TINY, details={})
    checkpoint, ours, older = (
        {"checkpoint": str(folder)},
        {"path": str(tmp_path / "ours")},
        {"path": str(tmp_path / "older")},
    )
    for there in (checkpoint, ours):
        said = {"job": "p", "select": "step 2", "step": 2}
        assert opened(tmp_path, knn({"job": "p", "select": "step 2"}), there).source == said
        with pytest.raises(BadSpec, match=r"select is `step 1`, and \S+ is of step 2; .*or say select: step 2"):
            opened(tmp_path, knn({"job": "p", "select": "step 1"}), there)
    with pytest.raises(
        BadSpec, match="older does not say of which step it is; give the checkpoint folder of that step"
    ):
        opened(tmp_path, knn({"job": "p", "select": "step 2"}), older)
    assert opened(tmp_path, knn({"job": "p"}), ours).source == {"job": "p", "select": "last", "step": 2}
    assert warnings(tmp_path) == []
    assert opened(tmp_path, knn({"job": "p"}), checkpoint).source["step"] == 2
    (warning,) = warnings(tmp_path)
    assert "what is judged is the checkpoint step-00000002; say select: step 2" in warning


def test_raw_pixels_have_no_architecture_and_an_untrained_one_has_the_specs(tmp_path: Path) -> None:
    pixels = opened(tmp_path, knn({"pixels": True}), None)
    assert (pixels.digest, pixels.architecture) == (None, None)
    assert opened(tmp_path, knn({"random": 1}, TINY), None).architecture == TINY


def test_a_detector_opens_its_backbone_without_a_size(tmp_path: Path) -> None:
    fields = {"kind": "detection", "data": "scenes", "backbone_from": {"file": "w"}, "backbone": TINY.model_dump()}
    spec = parse_spec(fields)
    assert isinstance(spec, DetectionSpec)
    found = opened(tmp_path, spec, {"file": str(saved(tmp_path, weights()))})
    assert found.digest == backbone_digest(weights())


def test_the_copy_to_train_is_the_opened_network_and_leaves_it_as_it_is(tmp_path: Path) -> None:
    found = opened(tmp_path, knn({"file": "w"}, TINY), {"file": str(saved(tmp_path, weights()))})
    copy = found.trainable_copy()
    assert copy.training
    assert all(parameter.requires_grad for parameter in copy.parameters())
    assert backbone_digest(copy.state_dict()) == found.digest
    copy(torch.randn(4, 3, 16, 16)).sum().backward()
    torch.optim.SGD(copy.parameters(), lr=0.1).step()
    assert backbone_digest(copy.state_dict()) != found.digest
    found.check_frozen()


@pytest.fixture
def resnet_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with weights of torchvision's: a network of its own, under a name that carries its sha256."""
    network = torchvision.models.resnet18()
    path = saved(tmp_path, network.state_dict())
    (tmp_path / "weights").mkdir()
    path = path.rename(tmp_path / "weights" / f"resnet18-{sha256(path)[:8]}.pth")
    real = torchvision_weights.torchvision_weights(RESNET)
    assert (real.file, real.architecture) == ("resnet18-f37072fd.pth", BackboneSpec(name="resnet18"))
    ours = dataclasses.replace(real, file=path.name)
    monkeypatch.setattr(torchvision_weights, "torchvision_weights", lambda name: {RESNET: ours}[name])
    return path


def test_torchvisions_weights_are_opened_by_name(tmp_path: Path, resnet_file: Path) -> None:
    for resolved in ({"folder": str(resnet_file.parent)}, {"file": str(resnet_file)}):
        found = opened(tmp_path, knn({"torchvision": RESNET}), resolved)
        assert found.architecture == BackboneSpec(name="resnet18")
        assert found.source == {
            "torchvision": RESNET,
            "name": "resnet18",
            "read": resnet_file.name,
            "sha256": sha256(resnet_file),
            "left_out": {"tensors": 2, "names": ["fc.weight", "fc.bias"]},
        }
        network = torchvision.models.resnet18()
        network.load_state_dict(torch.load(resnet_file, weights_only=True))
        network.fc = nn.Identity()
        images = torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32)
        with torch.no_grad():
            assert torch.equal(found.module(images), network.eval()(images))


def test_a_checkpoint_folder_whose_state_is_compressed_is_refused(tmp_path: Path) -> None:
    spec = runs.spec(backbone=TINY.model_dump())
    folder = write_checkpoint(runs.context(tmp_path / "pretraining"), {"model": prefixed("backbone.")}, step=3, epoch=1,
                              spec=spec.resolved(), spec_digest="d", policy=spec.run.checkpoint, milestone=False,
                              metrics={})  # fmt: skip
    plain = (folder / "state.pt").rename(tmp_path / "plain.pt")
    with zipfile.ZipFile(plain) as whole, zipfile.ZipFile(folder / "state.pt", "w", zipfile.ZIP_DEFLATED) as small:
        for entry in whole.namelist():
            small.writestr(entry, whole.read(entry))
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "sha256": sha256(folder / "state.pt")}))
    with pytest.raises(BadSpec, match="compressed archive; unpack it"):
        opened(tmp_path, knn({"file": "ours"}), {"checkpoint": str(folder)})


def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path, resnet_file: Path) -> None:
    begins = sha256(resnet_file)[:8]
    torch.save({"fc.weight": torch.ones(1)}, resnet_file)
    said = rf"begins with {sha256(resnet_file)[:8]}, that of {RESNET} with {begins}; get the file again from https"
    with pytest.raises(BadSpec, match=said):
        opened(tmp_path, knn({"torchvision": RESNET}), {"folder": str(resnet_file.parent)})


def test_weights_that_are_not_there_are_named_with_their_place_and_never_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched(*_: Any, **__: Any) -> None:
        raise AssertionError("it went to the network")

    monkeypatch.setattr("socket.create_connection", fetched)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "resnet18-5c106cde.pth").touch()
    said = (
        r"resnet18-f37072fd.pth is not in the folder weights \(BARLOW_BACKBONES_DIR.*, which has "
        r"resnet18-5c106cde.pth; put it there from https://\S+/resnet18-f37072fd.pth: nothing is downloaded"
    )
    with pytest.raises(BadSpec, match=said):
        opened(tmp_path, knn({"torchvision": RESNET}), {"folder": str(tmp_path / "weights")})
    with pytest.raises(BadSpec, match=r"is the file resnet18-f37072fd.pth, .* give it as --backbone PATH"):
        opened(tmp_path, knn({"torchvision": RESNET}), None)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path, resnet_file: Path) -> None:
    outside = resnet_file.rename(tmp_path / "elsewhere.pth")
    resnet_file.symlink_to(outside)
    with pytest.raises(BadSpec, match="is not in the folder weights"):
        opened(tmp_path, knn({"torchvision": RESNET}), {"folder": str(resnet_file.parent)})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ResNet50_Weights.IMAGENET1K_V3", "did you mean 'ResNet50_Weights.IMAGENET1K_V2'"),
        ("ResNet50_Weights.DEFAULT", "has no weights 'ResNet50_Weights.DEFAULT'; did you mean 'ResNet50_Weights"),
        ("VGG16_Weights.IMAGENET1K_FEATURES", "is for pixels of mean .* ours are normalised by"),
        ("EfficientNet_V2_L_Weights.IMAGENET1K_V1", "is for pixels of mean .* ours are normalised by"),
    ],
)
def test_weights_that_torchvision_lacks_or_normalises_otherwise_are_refused(
    tmp_path: Path, name: str, said: str
) -> None:
    with pytest.raises(BadSpec, match=said):
        opened(tmp_path, knn({"torchvision": name}, size=224), {"folder": str(tmp_path)})


def test_every_weight_of_torchvision_is_known_by_network_and_file() -> None:
    every = torchvision_weights._all()
    assert {f"{network}" for network, _ in every.values()} <= set(torchvision.models.list_models())
    found = []
    for name, (network, entry) in every.items():
        pixels = entry.transforms()
        if (tuple(pixels.mean), tuple(pixels.std)) == (PIXEL_MEAN, PIXEL_STD):
            one = torchvision_weights.torchvision_weights(name)
            found.append(one)
            assert one.address.endswith(f"/{one.file}")
            with pytest.raises(ValueError, match=f"the sha256 of {one.file} begins with 0{{8,}}"):
                one.check("0" * 64)
            assert knn({"torchvision": name}, size=224).backbone_from.torchvision == name
            assert one.architecture.name == network
    assert len(found) == len(every) - 2


@pytest.mark.parametrize(
    ("weights_name", "size", "pointer", "said"),
    [
        ("ResNet51_Weights.IMAGENET1K_V2", 224, "/backbone_from/torchvision", "did you mean those of resnet50"),
        ("ViT_B_16_Weights.IMAGENET1K_V1", 96, "/images/size", "takes images of 224 px"),
        ("FasterRCNN_ResNet50_FPN_Weights.COCO_V1", 224, "/backbone_from/torchvision", "no classification network"),
    ],
)
def test_what_torchvision_cannot_have_is_refused_with_the_spec(
    weights_name: str, size: int, pointer: str, said: str
) -> None:
    with pytest.raises(SpecError) as refused:
        knn({"torchvision": weights_name}, size=size)
    assert [(fault.pointer, said in fault.message) for fault in refused.value.faults] == [(pointer, True)]


@pytest.mark.parametrize("name", ["../w.pth", ".w.pth", "a/../w.pth", "/w.pth", "a//w.pth", "a/.w.pth", "", "a/"])
def test_a_name_that_could_leave_the_folder_is_refused_with_the_spec(name: str) -> None:
    with pytest.raises(SpecError):
        knn({"file": name}, TINY)


def test_by_hand_a_path_is_what_the_spec_asks_for(tmp_path: Path) -> None:
    path = saved(tmp_path, weights() | HEAD)
    save_backbone(tmp_path / "ours", source(), TINY, details={})

    def inputs(spec: BackboneJudged, given: Path) -> Any:
        run = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        attempt = by_hand.begin(run, spec, given)
        return folders.read_inputs(folders.attempt_folder(run, attempt))["backbone"]

    published = {
        "path": str(tmp_path / "ours"),
        "sha256": json.loads((tmp_path / "ours/config.json").read_text())["sha256"],
    }
    assert inputs(knn({"file": "w"}, TINY), path) == {"file": str(path)}
    assert inputs(knn({"file": "w"}), tmp_path / "ours") == published
    assert inputs(knn({"job": "p"}), tmp_path / "ours") == published
    assert inputs(knn({"torchvision": RESNET}), path) == {"file": str(path)}
    assert inputs(knn({"torchvision": RESNET}), tmp_path) == {"folder": str(tmp_path)}
    with pytest.raises(BadSpec, match=r"a job leaves a folder: .*backbone_from: \{file: weights.pth\}"):
        inputs(knn({"job": "p"}), path)
    with pytest.raises(BadSpec, match="nothing is not there"):
        inputs(knn({"file": "w"}, TINY), tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadSpec, match="no file of weights, no published backbone"):
        inputs(knn({"file": "w"}, TINY), tmp_path / "empty")
    (tmp_path / "ours/config.json").write_text("{}")
    with pytest.raises(BadSpec, match=r"ours/config.json does not describe a backbone"):
        inputs(knn({"file": "w"}), tmp_path / "ours")


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "knn"},
        {"kind": "svm"},
        {"kind": "linear"},
        {"kind": "linear", "protocol": "cached-features"},
        {"kind": "semi_supervised", "labels": {"percent": 10}},
        {"kind": "detection"},
    ],
    ids=lambda fields: "-".join(map(str, fields.values())),
)
def test_a_backbone_that_cannot_be_had_is_told_of_before_the_data_are_looked_at(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    spec = parse_spec({**fields, "data": "not-here-either", "backbone_from": {"job": "p"}})
    assert isinstance(spec, BackboneJudged)
    with pytest.raises(BadSpec, match=r"backbone_from\.job is not resolved"):
        run_evaluation(spec, runs.context(tmp_path))
