"""Linear and semi-supervised evaluation against answers that are known, and against torch's own loop."""

import copy
import math
from pathlib import Path

import labelled_runs
import numpy as np
import pytest
import runs
import torch
from labelled_runs import EPOCHS, KINDS, STEPS_PER_EPOCH
from PIL import Image
from torch import nn
from torch.nn import functional as F

from barlow_lab.specs import BackboneSpec
from trainer.data.loading.labelled import LabelledBatches
from trainer.data.pixels import normalise
from trainer.data.registry import open_data_set
from trainer.evaluation import testing
from trainer.evaluation.classifier import Classification, linear_classifier
from trainer.evaluation.fitting import rate_at
from trainer.failures import BadSpec
from trainer.models.backbones import build_backbone
from trainer.models.exported import backbone_digest

STEPS = EPOCHS * STEPS_PER_EPOCH


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """36 labelled images in three classes, and 15 to test."""
    return labelled_runs.tree(tmp_path_factory.mktemp("colours"))


@pytest.mark.parametrize("kind", KINDS)
def test_features_that_tell_the_class_are_learned_and_a_result_says_on_what(colours, tmp_path, kind):
    changes = {"epochs": 30, "learning_rate": 3.0, "precision": "fp32"}
    if kind == "linear":
        changes |= {"backbone_from": {"pixels": True}, "backbone": None}
    result = labelled_runs.run(tmp_path, colours, kind, **changes)
    assert result["headline"] == "top1"
    assert result["scores"] == {"top1": {"last": 100.0, "best": 100.0}}  # three classes have no top-5
    assert result["protocol"] == {"linear": "linear-document/1", "semi_supervised": "semi-supervised-document/2"}[kind]
    assert (result["steps"], result["epochs"]) == (30 * STEPS_PER_EPOCH, 30)
    assert {name: result["data"][name] for name in ("train_images", "test_images", "unreadable", "classes")} == {
        "train_images": 36, "test_images": 15, "unreadable": {"train": 0, "test": 0}, "classes": 3,
    }  # fmt: skip
    assert result["images"] == {"size": 8, "resized": 8, "resize_to": "short_side"}
    assert result["best_step"] < result["steps"]  # the earliest of equal ones
    series = runs.series(tmp_path)
    tests = {step: value for (name, step), value in series.items() if name == f"{kind}_top1"}
    assert sorted(tests) == list(range(STEPS_PER_EPOCH, 30 * STEPS_PER_EPOCH + 1, STEPS_PER_EPOCH))
    assert tests[result["best_step"]] == 100.0
    assert [e.step for e in runs.events(tmp_path, kind="started")] == [0]


@pytest.mark.parametrize("kind", KINDS)
def test_shuffled_labels_give_chance(tmp_path, kind):
    generator = np.random.default_rng(0)
    for split, count in (("train", 60), ("test", 300)):
        for number in range(count):
            path = tmp_path / "tree" / split / f"class-{number % 3}" / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    result = labelled_runs.run(tmp_path / "run", tmp_path / "tree", kind, batch_size=30, precision="fp32")
    # 100 / 3 with a standard deviation of 2.7 for 300 images.
    assert abs(result["scores"]["top1"]["last"] - 100 / 3) < 11


def _recorded(monkeypatch, folder, data, kind, **changes):
    """(batches, parameters after each step, Classification) of a run."""
    batches, parameters, fits = [], [], []
    descend = Classification.descend

    def recording(self, batch, step, rate):
        fits[:] = [self]
        if not batches:
            self.at_first = {name: p.detach().clone() for name, p in self.model.state_dict().items()}
        batches.append((batch.images.clone(), batch.labels.clone()))
        found = descend(self, batch, step, rate)
        parameters.append({name: p.detach().clone() for name, p in self.model.state_dict().items()})
        return found

    monkeypatch.setattr(Classification, "descend", recording)
    assert labelled_runs.run(folder, data, kind, **changes) is not None
    return batches, parameters, fits[0]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("linear", {"learning_rate": 2.0, "weight_decay": 0.01}),
        ("linear", {"protocol": "places205", "epochs": EPOCHS, "batch_size": 8, "momentum": 0.0}),
        ("semi_supervised", {"backbone_learning_rate": 0.3, "weight_decay": 0.02}),
        ("semi_supervised", {"protocol": "cosine", "epochs": EPOCHS, "batch_size": 8}),
    ],
)
def test_the_update_is_that_of_a_plain_loop_over_torchs_sgd(colours, tmp_path, monkeypatch, kind, changes):
    batches, parameters, _ = _recorded(monkeypatch, tmp_path, colours, kind, **changes)
    spec = labelled_runs.spec(kind, **changes)
    model = nn.Sequential(build_backbone(BackboneSpec(name="tiny"), seed=3), linear_classifier(128, 3, seed=0)).double()
    trained = kind == "semi_supervised"
    model[0].train(trained)
    groups = [{"params": model[1].parameters(), "peak": spec.learning_rate * 8 / 256}]
    if trained:
        groups.append({"params": model[0].parameters(), "peak": spec.backbone_learning_rate * 8 / 256})
    sgd = torch.optim.SGD(
        groups, lr=0.1, momentum=spec.momentum, weight_decay=spec.weight_decay, foreach=False, fused=False
    )
    assert len(batches) == STEPS
    for step, (images, labels) in enumerate(batches):
        for group in sgd.param_groups:
            group["lr"] = group["peak"] * rate_at(spec.schedule, step, STEPS)
        pixels = normalise(images, torch.float64)
        features = model[0](pixels) if trained else model[0](pixels).detach()
        sgd.zero_grad()
        F.cross_entropy(model[1](features), labels).backward()
        sgd.step()
        theirs = {f"backbone.{name}": value for name, value in model[0].state_dict().items()}
        theirs |= {f"classifier.{name}": value for name, value in model[1].state_dict().items()}
        assert parameters[step].keys() == theirs.keys()
        for name, value in theirs.items():
            torch.testing.assert_close(parameters[step][name], value, rtol=1e-9, atol=1e-12, msg=name)


def test_the_classifier_begins_as_the_references_whatever_the_ranks_have_drawn():
    torch.manual_seed(1)
    first = linear_classifier(2048, 1000, seed=4)
    torch.manual_seed(2)
    again, other = linear_classifier(2048, 1000, seed=4), linear_classifier(2048, 1000, seed=5)
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    assert float(first.weight.detach().std()) == pytest.approx(0.01, rel=0.01)
    assert abs(float(first.weight.detach().mean())) < 1e-4
    assert not first.bias.any()


def test_the_rates_that_are_recorded_are_those_of_the_steps(colours, tmp_path):
    labelled_runs.run(tmp_path, colours, "linear", batch_size=9)
    recorded = {step: value for (name, step), value in runs.series(tmp_path).items() if name == "linear_learning_rate"}
    expected = {step: 0.3 * 9 / 256 * (1 + math.cos(math.pi * (step - 1) / STEPS)) / 2 for step in range(1, STEPS + 1)}
    assert recorded == pytest.approx(expected)


def test_a_frozen_backbone_stays_as_it_was_and_a_change_of_a_bit_is_noticed(colours, tmp_path, monkeypatch):
    _, parameters, fit = _recorded(monkeypatch, tmp_path / "a", colours, "linear", precision="fp32")
    backbone = build_backbone(BackboneSpec(name="tiny"), seed=3)
    kept = {name.removeprefix("backbone."): v for name, v in parameters[-1].items() if name.startswith("backbone.")}
    assert runs.same(kept, dict(backbone.state_dict()))
    assert not any(module.training for module in fit.model["backbone"].modules())
    monkeypatch.undo()

    scores = Classification._scores

    def careless(self, images, *, first=False):
        if first:
            self.model["backbone"].layers[1].num_batches_tracked += 1
        return scores(self, images, first=first)

    monkeypatch.setattr(Classification, "_scores", careless)
    with pytest.raises(AssertionError, match="changed its backbone"):
        labelled_runs.run(tmp_path / "b", colours, "linear")


def test_semi_supervised_trains_and_tests_the_backbone_and_names_its_beginning(colours, tmp_path, monkeypatch):
    _, parameters, fit = _recorded(monkeypatch, tmp_path, colours, "semi_supervised", precision="fp32")
    for name, before in fit.at_first.items():
        assert not torch.equal(parameters[-1][name], before), name
    source = build_backbone(BackboneSpec(name="tiny"), seed=3)
    result = labelled_runs.run(tmp_path / "again", colours, "semi_supervised", precision="fp32")
    assert result["backbone"]["digest"] == backbone_digest(source.state_dict())
    assert result["labels"]["images"] == 36
    # The last test's answer again, from the parameters after the last step.
    model = nn.Sequential(source, nn.Linear(128, 3)).eval()
    model.load_state_dict({
        name.replace("backbone.", "0.").replace("classifier.", "1."): value for name, value in parameters[-1].items()
    })  # fmt: skip
    source_of_data = labelled_runs.context(tmp_path / "x", colours).data_source("own")
    test = open_data_set("own", "test", source=source_of_data)
    images = torch.from_numpy(np.stack([test.image(i).transpose(2, 0, 1) for i in range(15)]))
    right = (model(normalise(images, torch.float32)).argmax(1).numpy() == test.labels()).sum()
    assert result["scores"]["top1"]["last"] == pytest.approx(100 * right / 15)


def test_a_share_of_the_labels_is_all_that_semi_supervised_trains_on(colours, tmp_path, monkeypatch):
    shown = set()
    iterate = LabelledBatches.iterate

    def noting(self, *ends):
        for batch in iterate(self, *ends):
            shown.update(self._dataset.name(i) for i in batch.indices.tolist())
            yield batch

    monkeypatch.setattr(LabelledBatches, "iterate", noting)
    result = labelled_runs.run(
        tmp_path, colours, "semi_supervised", labels={"percent": 25, "seed": 2}, batch_size=4, epochs=8
    )
    assert len(shown) == 9  # two batches of four in each epoch, and the last image is another one each time
    classes = [int(Path(name).name[:3]) % 3 for name in shown]
    assert {number: classes.count(number) for number in range(3)} == {0: 3, 1: 3, 2: 3}
    assert result["labels"].keys() == {"percent", "seed", "digest", "images"}
    assert (result["labels"]["percent"], result["labels"]["seed"], result["labels"]["images"]) == (25, 2, 9)
    assert result["data"]["train_images"] == 9


def test_a_list_of_the_host_is_used_and_named(colours, tmp_path):
    names = tmp_path / "few.txt"
    names.write_text("".join(f"{number:03d}.png\n" for number in range(6)))
    context = labelled_runs.context(tmp_path / "run", colours)
    context.inputs["data"]["own"]["lists"] = {"few": str(names)}
    spec = labelled_runs.spec("semi_supervised", labels={"list": "few"}, batch_size=3)
    result = labelled_runs.run_evaluation(spec, context)
    assert result["labels"].keys() == {"list", "digest", "images"}
    assert (result["labels"]["list"], result["labels"]["images"]) == ("few", 6)


def test_unreadable_images_are_replaced_in_training_left_out_in_tests_and_told_once(tmp_path):
    data = labelled_runs.tree(tmp_path / "tree", train_unreadable=(1, 2, 30), test_unreadable=(0, 7))
    result = labelled_runs.run(tmp_path / "run", data, "linear")
    assert result["data"]["unreadable"] == {"train": 3, "test": 2}
    assert (result["data"]["train_images"], result["data"]["test_images"]) == (33, 13)
    said = [e.data["message"] for e in runs.events(tmp_path / "run", kind="warning")]
    assert sum("The next image is taken instead" in message for message in said) == 3
    assert [message for message in said if "left out" in message] == [
        next(m for m in said if m.startswith("2 of 15 images cannot be read and are left out (testing); the first: "))
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_other_precisions_come_near_to_double(colours, tmp_path, kind, precision):
    labelled_runs.run(tmp_path / "double", colours, kind)
    labelled_runs.run(tmp_path / "other", colours, kind, precision=precision)
    ours, right = (
        [value for (name, _), value in runs.series(tmp_path / folder).items() if name == f"{kind}_loss"]
        for folder in ("other", "double")
    )
    assert len(ours) == STEPS
    assert ours == pytest.approx(right, rel=1e-3 if precision == "fp32" else 0.05)
    assert ours != right


@pytest.mark.parametrize("kind", KINDS)
def test_in_16_bits_the_scores_of_classes_are_not_rounded_to_ties(colours, tmp_path, monkeypatch, kind):
    seen = []
    places = testing.true_class_places
    monkeypatch.setattr(
        testing, "true_class_places", lambda scores, labels: seen.append(scores) or places(scores, labels)
    )
    labelled_runs.run(tmp_path, colours, kind, precision="bf16", epochs=1)
    scores = torch.cat(seen)
    assert scores.dtype == torch.float32
    assert (scores != scores.bfloat16()).float().mean() > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_that_does_not_fit_is_refused_with_the_remedy(colours, tmp_path, kind):
    with pytest.raises(BadSpec, match=r"batch_size 37 is above the 36 labelled images: .* use at most 36"):
        labelled_runs.run(tmp_path / "above", colours, kind, batch_size=37)
    context = labelled_runs.context(tmp_path / "uneven", colours)
    context.world_size = 3
    with pytest.raises(BadSpec, match="batch_size 8 is global and 3 ranks do not divide it; use 6 or 9"):
        labelled_runs.run_evaluation(labelled_runs.spec(kind), context)


def test_a_batch_normalisation_without_an_average_cannot_be_synchronised(colours, tmp_path, monkeypatch):
    backbone = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=None), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    monkeypatch.setattr("trainer.evaluation.backbone.build_backbone", lambda *_, **__: copy.deepcopy(backbone))
    with pytest.raises(BadSpec, match="cannot be trained here: only batch normalisation with"):
        labelled_runs.run(tmp_path, colours, "semi_supervised")
