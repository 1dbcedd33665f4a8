"""Recipe files: one published row each, in true-gradient units, with a digest that does not move."""

import re
from pathlib import Path

import pytest

from trainer.specs import LarsSpec, PretrainSpec, digest, load_spec_file, parse_spec

RECIPES = Path(__file__).parents[2] / "recipes"
DIGESTS = {
    "imagenet-paper": "ae2ef46cc7b12c8f237bc4a240bdac5c71b66024f61c693a8c2456ec01fcb792",
    "imagenet-reference": "69ba37b8749b921dd8d2a7ba881d186dc86a0ee717641d2b0805074d7aaa8307",
    "imagenet-batch-128": "a04054b2fb11001c8a8768d881f60673fabc70f513ab5f0b8f99cbcc57521339",
    "imagenet-batch-256": "b7104360f926372b5b32e83cfbbe3ba23b00cc0152e05e5f96862145e0124d13",
    "imagenet-batch-512": "656fdd1d367ae9bc3fad1878ff31a1c0ed5e5b9e7f8bd6bb7258d5afc1400cb2",
    "imagenet-batch-1024": "0b7932a3bf77e6156dd9619772e1f5f494c51da53e232c1828d67b9607df05c0",
    "imagenet-batch-2048": "87dc924573f0bacaeacf3034add3a685c8d51dde2eb6ec085bfc1b1626a0984f",
    "imagenet-batch-4096": "a4b2f78a6324a5481edeeea8d6e700c9ed45d091e5af419c54b313f70fb18472",
}
TABLE = {128: (0.7, 69.7), 256: (0.4, 70.7), 512: (0.3, 71.4), 1024: (0.25, 71.7), 2048: (0.2, 71.4), 4096: (0.2, 70.7)}
"""Batch size: (best learning rate, top-1 after 300 epochs), as facebookresearch/barlowtwins issue 7 gives them."""


def read(name: str) -> PretrainSpec:
    spec = parse_spec(load_spec_file(RECIPES / f"{name}.yaml"))
    assert isinstance(spec, PretrainSpec)
    return spec


def lars_of(spec: PretrainSpec) -> LarsSpec:
    assert isinstance(spec.optimizer, LarsSpec)
    return spec.optimizer


@pytest.mark.parametrize("name", DIGESTS)
def test_a_published_row_keeps_its_name_and_its_digest(name: str) -> None:
    spec = read(name)
    assert spec.name == name
    assert digest(spec) == DIGESTS[name]


def test_every_published_row_is_pinned() -> None:
    assert {path.stem for path in RECIPES.glob("imagenet-*.yaml")} == set(DIGESTS)


def test_the_paper_s_and_the_reference_s_run_are_divided_by_their_ranks() -> None:
    paper, reference = read("imagenet-paper"), read("imagenet-reference")
    for spec, ranks, decay, lambda_ in ((paper, 32, 1.5e-6, 0.005), (reference, 16, 1e-6, 0.0051)):
        lars = lars_of(spec)
        assert lars.learning_rate == 0.2
        assert lars.bias_learning_rate == pytest.approx(0.0048 / ranks, rel=1e-12)
        assert lars.weight_decay == pytest.approx(decay * ranks, rel=1e-12)
        assert (lars.momentum, lars.trust_coefficient, lars.final_fraction) == (0.9, 0.001, 0.001)
        assert (spec.objective.lambda_, spec.epochs, spec.batch_size) == (lambda_, 1000, 2048)


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
