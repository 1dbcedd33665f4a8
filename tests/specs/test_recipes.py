"""Recipe files: one published row each with the published number, in true-gradient units, digests that do not move."""

import re
from pathlib import Path
from typing import Any

import pytest

from barlow_lab.specs import (
    DetectionSpec,
    EvaluationSpec,
    LarsSpec,
    LinearSpec,
    PretrainSpec,
    SemiSupervisedSpec,
    Spec,
    SvmSpec,
    digest,
    load_spec_file,
    parse_spec,
)

RECIPES = Path(__file__).parents[2] / "recipes"
DIGESTS = {
    "imagenet-paper": "ae2ef46cc7b12c8f237bc4a240bdac5c71b66024f61c693a8c2456ec01fcb792",
    "imagenet-reference": "69ba37b8749b921dd8d2a7ba881d186dc86a0ee717641d2b0805074d7aaa8307",
    "imagenet-batch-128": "a04054b2fb11001c8a8768d881f60673fabc70f513ab5f0b8f99cbcc57521339",
    "imagenet-batch-256": "b7104360f926372b5b32e83cfbbe3ba23b00cc0152e05e5f96862145e0124d13",
    "imagenet-batch-512": "656fdd1d367ae9bc3fad1878ff31a1c0ed5e5b9e7f8bd6bb7258d5afc1400cb2",
    "imagenet-batch-1024": "0b7932a3bf77e6156dd9619772e1f5f494c51da53e232c1828d67b9607df05c0",
    "imagenet-batch-2048": "87dc924573f0bacaeacf3034add3a685c8d51dde2eb6ec085bfc1b1626a0984f",
    "imagenet-simclr": "1bd8972c73df6214ba3f2a8bd80915aed1812db6d31089d46337755d17c8bad8",
    "imagenet-batch-4096": "a4b2f78a6324a5481edeeea8d6e700c9ed45d091e5af419c54b313f70fb18472",
}
"""Of the pretraining of each."""
TABLE = {128: (0.7, 69.7), 256: (0.4, 70.7), 512: (0.3, 71.4), 1024: (0.25, 71.7), 2048: (0.2, 71.4), 4096: (0.2, 70.7)}
"""Batch size: (best learning rate, top-1 after 300 epochs), as facebookresearch/barlowtwins issue 7 gives them."""
PAPER = "Zbontar et al. 2021, Barlow Twins (arXiv 2103.03230 v3)"
BASELINE = (71.4, 90.2)
ABLATIONS = {
    ("loss-variants", 5): {
        "baseline": BASELINE,
        "on-diagonal": (57.3, 80.5),
        "off-diagonal": (0.1, 0.5),
        "normalisation-feature": (69.8, 88.8),
        "no-batch-norm": (71.2, 89.7),
        "no-normalisation": (53.4, 76.7),
        "cross-entropy": (63.3, 85.7),
    },
    ("symmetry-breaking", 6): {
        "baseline": BASELINE,
        "stop-gradient": (70.5, 89.0),
        "predictor": (70.2, 89.0),
        "both": (61.3, 83.5),
    },
    ("projector-depths", 5): {"3": BASELINE},
    ("augmentations", 5): {"baseline": BASELINE},
    ("lambda", 5): {"0.005": BASELINE},
}
"""(recipe, table of the paper) → row → top-1 and top-5; rows without a number are of a figure or a sentence."""
PUBLISHED: dict[tuple[str, str], tuple[str, dict[str, float]]] = {
    ("imagenet-paper", "linear"): (f"{PAPER}, table 1", {"top1": 73.2, "top5": 91.0}),
    ("imagenet-reference", "linear"): ("README of facebookresearch/barlowtwins", {"top1": 73.5, "top5": 91.0}),
    **{
        (f"imagenet-batch-{batch}", "linear"): ("facebookresearch/barlowtwins issue 7", {"top1": top1})
        for batch, (_, top1) in TABLE.items()
    },
    ("imagenet-simclr", "linear"): (
        "Chen et al. 2020, SimCLR (arXiv 2002.05709), table 6",
        {"top1": 69.3, "top5": 89.0},
    ),
    ("imagenet-projector-widths", "linear-8192"): (f"{PAPER}, table 5", {"top1": 71.4}),
    **{
        (f"imagenet-{ablation}", f"linear-{row}"): (f"{PAPER}, table {table}", {"top1": top1, "top5": top5})
        for (ablation, table), rows in ABLATIONS.items()
        for row, (top1, top5) in rows.items()
    },
    ("linear-imagenet", ""): (f"{PAPER}, table 1", {"top1": 73.2, "top5": 91.0}),
    ("semi-supervised-imagenet-1-percent", ""): (f"{PAPER}, table 2", {"top1": 55.0, "top5": 79.2}),
    ("semi-supervised-imagenet-10-percent", ""): (f"{PAPER}, table 2", {"top1": 69.7, "top5": 89.3}),
    ("linear-places205", ""): (f"{PAPER}, table 3", {"top1": 54.1}),
    ("linear-inaturalist2018", ""): (f"{PAPER}, table 3", {"top1": 46.5}),
    ("svm-voc07", ""): (f"{PAPER}, table 3", {"map_all_points": 86.2}),
    ("detection-voc0712", ""): (
        f"{PAPER}, table 4",
        {"box_ap_11_point": 56.8, "box_ap50_11_point": 82.6, "box_ap75_11_point": 63.4},
    ),
    ("segmentation-coco", ""): (
        f"{PAPER}, table 4",
        {"box_ap": 39.2, "box_ap50": 59.0, "box_ap75": 42.5, "mask_ap": 34.3, "mask_ap50": 56.0, "mask_ap75": 36.5},
    ),
}
"""(file, job in it): the source and its numbers. Every published number of every recipe is here."""
VARIED = {
    "loss-variants": {"objective", "projector"},
    "symmetry-breaking": {"objective"},
    "projector-depths": {"projector"},
    "augmentations": {"views"},
    "lambda": {"objective"},
}
"""Ablation → what its rows vary."""
EVALUATIONS = [name for name, job in PUBLISHED if not job]
SCORES = {
    "linear": {"top1", "top5"},
    "semi_supervised": {"top1", "top5"},
    "svm": {"map_11_point", "map_all_points"},
    "detection": {f"{kind}_{ap}" for kind in ("box", "mask") for ap in ("ap", "ap50", "ap75")}
    | {f"box_{ap}_11_point" for ap in ("ap", "ap50", "ap75")},
}
"""Names of the scores of a result."""


def specs_of(name: str) -> dict[str, Spec]:
    """The jobs of a file as they stand before what varies is written out, one without a name for a bare spec."""
    body: dict[str, Any] = load_spec_file(RECIPES / f"{name}.yaml")
    return {
        job: parse_spec({field: value for field, value in spec.items() if field not in ("seeds", "grid", "zip")})
        for job, spec in body.get("jobs", {"": body}).items()
    }


def read(name: str) -> PretrainSpec:
    spec = specs_of(name)["pretrain"]
    assert isinstance(spec, PretrainSpec)
    return spec


def evaluation(name: str) -> Any:
    (spec,) = specs_of(name).values()
    assert not isinstance(spec, PretrainSpec)
    return spec


def lars_of(spec: PretrainSpec) -> LarsSpec:
    assert isinstance(spec.optimizer, LarsSpec)
    return spec.optimizer


def test_every_published_number_is_that_of_its_source() -> None:
    found = {
        (path.stem, job): (spec.run.published.source, spec.run.published.scores)
        for path in RECIPES.glob("*.yaml")
        for job, spec in specs_of(path.stem).items()
        if spec.run.published is not None
    }
    assert found == PUBLISHED


@pytest.mark.parametrize(("name", "job"), PUBLISHED)
def test_a_published_number_stands_under_the_name_of_a_score_and_in_the_comment(name: str, job: str) -> None:
    spec = specs_of(name)[job]
    source, scores = PUBLISHED[name, job]
    assert set(scores) <= SCORES[spec.kind]
    comment = re.sub(r"\n# ?", " ", (RECIPES / f"{name}.yaml").read_text("utf-8").split("\nkind")[0].split("\nname")[0])
    for score in scores.values():
        assert f" {score:.1f}" in comment, score
    table = re.search(r"table \d|issue \d|README", source)
    assert table is not None
    assert table[0] in comment, source


def test_the_files_are_all_named_by_their_row() -> None:
    for path in RECIPES.glob("*.yaml"):
        body = load_spec_file(path)
        assert path.stem == "digits" or body["name"] == path.stem
    small = {path.stem for path in RECIPES.glob("textures-*.yaml")} | {"demo", "digits", "suite"}
    assert {path.stem for path in RECIPES.glob("*.yaml")} == small | {name for name, _ in PUBLISHED}


@pytest.mark.parametrize("name", EVALUATIONS)
def test_an_evaluation_s_file_is_its_protocol_without_departures(name: str) -> None:
    spec = evaluation(name)
    assert spec.name == name
    assert spec.departures() == {}
    assert spec.backbone_from.file == "barlowtwins/resnet50.pth"
    assert spec.backbone.name == "resnet50"
    assert "Paper and circulating code differ" in (RECIPES / f"{name}.yaml").read_text("utf-8") or (
        name == "segmentation-coco"
    )


def test_the_protocols_of_the_rows_are_those_of_the_appendices() -> None:
    linear = evaluation("linear-imagenet")
    assert isinstance(linear, LinearSpec)
    assert (linear.epochs, linear.learning_rate, linear.weight_decay, linear.batch_size) == (100, 0.3, 1e-6, 256)
    for percent in (1, 10):
        semi = evaluation(f"semi-supervised-imagenet-{percent}-percent")
        assert isinstance(semi, SemiSupervisedSpec)
        assert (semi.epochs, semi.backbone_learning_rate, semi.learning_rate) == (20, 0.002, 0.5)
        assert semi.labels.list == f"{percent}percent"
    for name, epochs in (("places205", 14), ("inaturalist2018", 84)):
        transfer = evaluation(f"linear-{name}")
        assert isinstance(transfer, LinearSpec)
        assert (transfer.data.name, transfer.epochs, transfer.learning_rate) == (name, epochs, 0.01)
        assert (transfer.weight_decay, transfer.schedule.after) == (5e-4, pytest.approx([1 / 3, 2 / 3]))
    assert isinstance(evaluation("svm-voc07"), SvmSpec)
    voc, coco = evaluation("detection-voc0712"), evaluation("segmentation-coco")
    assert isinstance(voc, DetectionSpec)
    assert isinstance(coco, DetectionSpec)
    assert (voc.steps, voc.batch_size, voc.learning_rate, voc.warmup_steps, voc.masks) == (24000, 16, 0.1, 1000, False)
    assert (coco.steps, coco.batch_size, coco.learning_rate, coco.masks) == (90000, 16, 0.03, True)


def test_the_projector_widths_differ_in_nothing_else_and_each_is_judged() -> None:
    jobs = specs_of("imagenet-projector-widths")
    widths = [2**power for power in range(4, 15)]
    assert set(jobs) == {f"{what}-{width}" for what in ("pretrain", "linear") for width in widths}
    for width in widths:
        pretraining, linear = jobs[f"pretrain-{width}"], jobs[f"linear-{width}"]
        assert isinstance(pretraining, PretrainSpec)
        assert pretraining.projector.widths == [width] * 3
        same = jobs["pretrain-16"].model_copy(update={"projector": pretraining.projector})
        assert digest(pretraining) == digest(same)
        assert isinstance(linear, EvaluationSpec)
        assert linear.backbone_from.job == f"pretrain-{width}"
    assert "no table" in (RECIPES / "imagenet-projector-widths.yaml").read_text("utf-8")


@pytest.mark.parametrize("name", DIGESTS)
def test_a_published_row_keeps_its_digest_and_the_paper_s_linear_protocol(name: str) -> None:
    assert digest(read(name)) == DIGESTS[name]
    linear = specs_of(name)["linear"]
    assert isinstance(linear, LinearSpec)
    assert (linear.protocol_name, linear.departures()) == ("linear-document/1", {})
    assert linear.backbone_from.job == "pretrain"


def test_every_published_pretraining_is_pinned() -> None:
    rows = {path.stem for path in RECIPES.glob("imagenet-*.yaml")}
    several = {"imagenet-projector-widths"} | {f"imagenet-{name}" for name, _ in ABLATIONS}
    assert rows - several == set(DIGESTS)


@pytest.mark.parametrize(("name", "fields"), VARIED.items())
def test_an_ablation_varies_its_fields_alone_and_each_row_is_judged(name: str, fields: set[str]) -> None:
    """Beside the baseline, which is one spec in all of them."""
    jobs = specs_of(f"imagenet-{name}")
    trained = {row.removeprefix("pretrain-"): job for row, job in jobs.items() if isinstance(job, PretrainSpec)}
    baseline = next(iter(trained.values()))
    assert digest(baseline) == digest(specs_of("imagenet-projector-widths")["pretrain-8192"])
    assert len({digest(job) for job in trained.values()}) == len(trained) == len(jobs) / 2
    for row, job in trained.items():
        assert digest(baseline.model_copy(update={field: getattr(job, field) for field in fields})) == digest(job)
        linear = jobs[f"linear-{row}"]
        assert isinstance(linear, LinearSpec)
        assert (linear.protocol_name, linear.departures()) == ("linear-document/1", {})
        assert linear.backbone_from.job == f"pretrain-{row}"


def test_what_was_published_as_a_figure_or_a_sentence_has_no_number_and_says_so() -> None:
    for name in ("projector-depths", "augmentations", "lambda"):
        jobs = specs_of(f"imagenet-{name}")
        assert len([job for job in jobs.values() if job.run.published is not None]) == 1
        assert "no number" in (RECIPES / f"imagenet-{name}.yaml").read_text("utf-8")
    views = [job.views for job in specs_of("imagenet-augmentations").values() if isinstance(job, PretrainSpec)]
    grey, jitter, solarize, blur = (
        [(view.a.grayscale, view.b.grayscale) != (0, 0) for view in views],
        [view.a.jitter.probability > 0 for view in views],
        [view.b.solarize.probability > 0 for view in views],
        [view.a.blur.probability > 0 for view in views],
    )
    assert [sum(kept) for kept in (grey, jitter, solarize, blur)] == [1, 2, 3, 4], "each leaves out one more"


def test_the_paper_s_and_the_reference_s_run_are_divided_by_their_ranks() -> None:
    paper, reference = read("imagenet-paper"), read("imagenet-reference")
    for spec, ranks, decay, lambda_ in ((paper, 32, 1.5e-6, 0.005), (reference, 16, 1e-6, 0.0051)):
        lars = lars_of(spec)
        assert lars.learning_rate == 0.2
        assert lars.bias_learning_rate == pytest.approx(0.0048 / ranks, rel=1e-12)
        assert lars.weight_decay == pytest.approx(decay * ranks, rel=1e-12)
        assert (lars.momentum, lars.trust_coefficient, lars.final_fraction) == (0.9, 0.001, 0.001)
        assert (spec.objective.lambda_, spec.epochs, spec.batch_size) == (lambda_, 1000, 2048)


def test_simclr_s_run_is_in_units_of_its_paper_s_loss() -> None:
    spec = read("imagenet-simclr")
    lars = lars_of(spec)
    assert (lars.learning_rate * spec.batch_size / 256, lars.weight_decay) == (4.8, 1e-6 / 2)
    assert lars.bias_learning_rate == 2 * lars.learning_rate
    assert spec.views.a == spec.views.b
    jitter = spec.views.a.jitter
    strengths = jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue
    assert (jitter.probability, strengths) == (0.8, (0.8, 0.8, 0.8, 0.2))
    assert (spec.views.a.blur.probability, spec.views.a.solarize.probability) == (0.5, 0)


@pytest.mark.parametrize("batch_size", TABLE)
def test_a_row_of_the_batch_size_table_is_divided_by_its_ranks_and_its_loss_scale(batch_size: int) -> None:
    rate, top1 = TABLE[batch_size]
    spec = read(f"imagenet-batch-{batch_size}")
    lars, ranks, loss_scale = lars_of(spec), 32, 0.024
    assert (spec.batch_size, spec.epochs, lars.learning_rate) == (batch_size, 300, rate)
    assert lars.reference_batch_size == 256
    assert lars.bias_learning_rate == pytest.approx(rate * loss_scale / ranks, rel=1e-12)
    assert lars.weight_decay == pytest.approx(1e-6 * ranks / loss_scale, rel=1e-6)
    assert f"top-1 {top1} %" in (RECIPES / f"imagenet-batch-{batch_size}.yaml").read_text("utf-8")


@pytest.mark.parametrize("name", DIGESTS)
def test_the_arithmetic_in_a_comment_is_that_of_the_values(name: str) -> None:
    """`field   0.7 * 0.024 / 32 = 0.000525` says how the published number became the one below it."""
    lars = lars_of(read(name))
    stated = re.findall(r"^#   (\w+) +(.+) = (\S+)$", (RECIPES / f"{name}.yaml").read_text("utf-8"), re.MULTILINE)
    assert [field for field, _, _ in stated] == ["bias_learning_rate", "weight_decay"]
    for field, product, result in stated:
        value = 1.0
        for operator, factor in re.findall(r"([*/]?) ?([0-9.e-]+)", product):
            value = value / float(factor) if operator == "/" else value * float(factor)
        assert float(result) == pytest.approx(value, rel=1e-6), (field, product)
        assert getattr(lars, field) == float(result), field
