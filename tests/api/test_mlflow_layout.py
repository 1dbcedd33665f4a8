"""What of a spec is a param in MLflow, and what is called how there, so that what one looks for first comes first."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from distributions import put_on_path

from barlow_lab.specs import load_spec_file, parse_experiment, parse_spec, registered
from barlow_lab.specs.objectives import ObjectiveSpec
from service.above_pictures import fits
from service.mlflow_layout import MOST_PARAMS, metric_name, params, picture_name

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
OBJECTIVES = [get_args(model.model_fields["name"].annotation)[0] for model in get_args(get_args(ObjectiveSpec)[0])]
PRETRAIN: dict[str, Any] = {"kind": "pretrain", "data": "imagenet"}


def of(spec: dict[str, Any], source: str | None = None) -> dict[str, str]:
    return params(parse_spec(spec).resolved(), source)


def test_what_nobody_chose_is_no_param() -> None:
    assert of(PRETRAIN) == {"data": "imagenet", "learning_rate": "0.2"}
    how = {"run": {"priority": 3, "labels": {"a": "b"}}, "resources": {"slots": 4}, "name": "x"}
    assert of({**PRETRAIN, **how}) == of(PRETRAIN)
    chosen = {
        "data": "digits",
        "backbone": {"name": "tiny"},
        "objective": {"lambda": 0.01},
        "optimizer": {"name": "adamw", "learning_rate": 3e-3},
        "projector": {"widths": [32, 32]},
        "batch_size": 64,
        "seed": 7,
        "views": {"preset": "small_images", "size": 16, "both": {"flip": 0.0}, "b": {"invert": 0.5}},
    }
    found = of({**PRETRAIN, **chosen})
    changes = found["changes"]
    assert changes.startswith("2 ("), "flip of both and invert of one"
    assert list(found.items()) == [
        ("data", "digits"),
        ("backbone", "tiny"),
        ("lambda", "0.01"),
        ("optimizer", "adamw"),
        ("learning_rate", "0.003"),
        ("batch_size", "64"),
        ("projector", "[32, 32]"),
        ("seed", "7"),
        ("views", "small_images"),
        ("size", "16"),
        ("changes", changes),
    ]


def test_other_views_are_told_apart() -> None:
    spec = {**PRETRAIN, "data": "digits"}
    changes = [of({**spec, "views": {"both": {"flip": flip}}})["changes"] for flip in (0.0, 0.25, 0.25)]
    assert changes[0] != changes[1] == changes[2]


def test_a_protocol_s_values_are_no_params_and_whose_backbone_it_is_always_one() -> None:
    judged = {"kind": "semi_supervised", "data": "imagenet", "labels": {"percent": 1}, "backbone_from": {"job": "p"}}
    assert of(judged, "p") == {"data": "imagenet", "backbone": "p", "percent": "1.0", "learning_rate": "0.5"}
    cosine = {**judged, "protocol": "cosine", "learning_rate": 0.25, "labels": {"percent": 1, "seed": 3}}
    assert of(cosine, "p") == {
        "data": "imagenet", "backbone": "p", "percent": "1.0", "labels.seed": "3", "protocol": "cosine",
        "learning_rate": "0.25",
    }  # fmt: skip
    floor = {"kind": "knn", "data": "digits", "backbone_from": {"random": 0}, "backbone": {"name": "tiny"}, "k": 5}
    assert of(floor) == {"data": "digits", "backbone": "untrained tiny, seed 0", "k": "5"}


def test_where_more_differs_the_rest_is_counted() -> None:
    many = {
        **PRETRAIN,
        "epochs": 5, "batch_size": 64, "seed": 1, "precision": "fp64",
        "backbone": {"name": "resnet18", "stem": "small"},
        "objective": {"lambda": 0.1, "form": "direct"}, "projector": {"widths": [8, 8]},
        "optimizer": {"learning_rate": 0.1, "bias_learning_rate": 0.1, "momentum": 0.5, "weight_decay": 0.5},
    }  # fmt: skip
    found = of(many)
    assert len(found) <= MOST_PARAMS
    assert re.fullmatch(r"[3-5] others \([0-9a-f]{6}\), in spec.yaml", found["more"])
    unseen = [of({**many, "seed": seed})["more"] for seed in (2, 3, 3)]
    assert unseen[0] != unseen[1] == unseen[2]


def test_what_is_wider_than_a_picture_ends_in_a_digest() -> None:
    """MLflow breaks its lines at blanks only, and a longer word pushes the picture out of its tile."""
    paths = [f"{'folder/' * 9}{name}.pth" for name in "ab"]
    judged = {"kind": "knn", "data": "digits", "backbone": {"name": "resnet50"}}
    told = [of({**judged, "backbone_from": {"file": path}}) for path in paths]
    assert [found["backbone"][:14] for found in told] == [paths[0][:14]] * 2
    assert all(re.search(r"~[0-9a-f]{6}$", found["backbone"]) for found in told)
    assert told[0] != told[1]
    assert all(fits(found.items()) for found in told)


def test_text_that_leaves_no_room_is_counted_with_the_others() -> None:
    wide = {**PRETRAIN, "projector": {"widths": [8192] * 8}, "seed": 11, "batch_size": 4096, "max_steps": 1777777}
    wide |= {"optimizer": {"name": "adamw", "learning_rate": 1.23456e-05, "weight_decay": 1.23456e-05}}
    found = of({**wide, "objective": {"name": "information_bottleneck", "beta": 1.23456789}})
    assert found["more"].startswith("3 others ("), "the batch size, projector and seed"
    assert fits(found.items())
    assert not fits([*found.items(), ("projector", str([8192] * 8))])
    stored = {**parse_spec(PRETRAIN).resolved(), "objective": {"name": "gone", "as_wide_as_a_picture_" + "m" * 20: 1}}
    assert params(stored, None).keys() == {"data", "objective", "learning_rate", "more"}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_each_objective_shows_its_name_and_what_is_not_its_default(objective: str) -> None:
    """Also one that is refused beside the default batch and width."""
    needed = {"queue": 128, "clusters": [8]} if objective == "pcl" else {}
    small = {**PRETRAIN, "projector": {"widths": [32]}, "batch_size": 128}
    told = {} if objective == "barlow_twins" else {"objective": objective}
    found = of({**small, "objective": {"name": objective, **needed}})
    chosen = {"clusters": "[8]", "queue": "128"} if needed else {}
    assert found == {
        "data": "imagenet", **told, **chosen, "learning_rate": "0.2", "batch_size": "128",
        "projector": "[32]",
    }  # fmt: skip


STRANGER = """
from typing import ClassVar, Literal

from barlow_lab.specs import ObjectiveBase


class Stranger(ObjectiveBase):
    implementation: ClassVar[str] = "MODULE:None"
    memory_words: ClassVar[str] = "nothing"
    name: Literal["stranger"]
    weight: float
    power: float = 2.0

    def faults(self, *, batch_size, width):
        return {"name": "made for small batches"} if batch_size > 128 else {}

    def numbers_held(self, *, samples, features, ranks):
        return 0
"""


def test_an_objective_of_ones_own_does_too_installed_or_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mine = {"name": "stranger", "weight": 0.5, "power": 2.0}
    stored = {**parse_spec(PRETRAIN).resolved(), "objective": mine, "batch_size": 128}
    entry = {"stranger": "Stranger"}
    put_on_path(monkeypatch, tmp_path, "layout_stranger", STRANGER, registered.OBJECTIVES, entry)
    found = {"data": "imagenet", "objective": "stranger", "weight": "0.5", "learning_rate": "0.2", "batch_size": "128"}
    assert params(stored, None) == found
    gone = {**stored, "objective": {**mine, "name": "gone"}}
    assert params(gone, None) == {**found, "objective": "gone", "power": "2.0"}, "whose defaults nobody knows"


def test_an_optimizer_of_another_version_shows_its_name_and_what_it_has() -> None:
    stored = {**parse_spec(PRETRAIN).resolved(), "optimizer": {"name": "gone", "learning_rate": 0.1, "beta": 0.9}}
    assert params(stored, None) == {"data": "imagenet", "optimizer": "gone", "learning_rate": "0.1", "beta": "0.9"}


def test_a_spec_of_another_version_has_params_all_the_same() -> None:
    spec = {**parse_spec(PRETRAIN).resolved(), "batch_size": "as many as there are", "unheard_of": 1}
    found = params(spec, None)
    assert len(found) <= MOST_PARAMS
    assert found["data"] == "imagenet"
    assert params({**spec, "kind": "of tomorrow"}, None)["data"] == "imagenet"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_no_recipe_has_more_than_a_dozen(recipe: Path) -> None:
    body = load_spec_file(recipe)
    for spec in parse_experiment(body).jobs.values() if "jobs" in body else [parse_spec(body)]:
        found = params(spec.resolved(), "pretrain")
        assert 1 <= len(found) <= MOST_PARAMS == 12
        assert "data" in found


@pytest.mark.parametrize(
    ("headline", "others"),
    [
        ("loss", ["grad_norm", "learning_rate", "skipped_steps"]),
        ("linear_top1", ["linear_loss", "linear_grad_norm", "linear_learning_rate"]),
        ("semi_supervised_top1", ["semi_supervised_loss", "semi_supervised_grad_norm"]),
        ("detection_box_ap", ["detection_loss", "detection_loss_objectness", "detection_learning_rate"]),
    ],
)
def test_headlines_come_before_what_only_tells_how_it_went(headline: str, others: list[str]) -> None:
    assert metric_name(headline) == headline, "as in the run database"
    assert sorted(map(metric_name, (headline, *others)))[0] == headline


def test_the_charts_of_a_pretraining_begin_with_scores_losses_and_rank() -> None:
    first = ["effective_rank", "knn_top1", "loss", "off_diagonal", "off_diagonal_excess", "on_diagonal", "probe_top1"]
    others = [
        "rankme",
        "feature_spread",
        "correlation_diagonal_mean",
        "correlation_off_diagonal_rms",
        "noise_floor",
        "grad_norm",
        "learning_rate",
    ]
    assert sorted(map(metric_name, first + others))[: len(first)] == first, "as in the run database"


def test_times_are_system_metrics_and_pictures_a_section_of_their_own() -> None:
    assert [metric_name(key) for key in ("images_per_second", "step_seconds", "data_seconds")] == [
        "system/images_per_second", "system/step_seconds", "system/data_seconds",
    ]  # fmt: skip
    assert picture_name("correlation") == "pictures/correlation"
