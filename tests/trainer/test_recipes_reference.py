"""A published recipe, divided by its ranks, repeats the run of those ranks and their raw all_reduce, on any number."""

from pathlib import Path

import pytest
import ranks
import reference_steps
import torch
from torch import Tensor

Parameters = dict[str, Tensor]


@pytest.fixture(scope="module")
def on_four_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Parameters]]:
    """What each of four real ranks ended with: the reference's step, and ours from the converted recipe."""
    folder: Path = tmp_path_factory.mktemp("reference")
    started = ranks.start([reference_steps.__file__, folder], reference_steps.RANKS, folder)
    assert ranks.finish(started) == [0] * reference_steps.RANKS, ranks.log(folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(reference_steps.RANKS)]


def distance(a: Parameters, b: Parameters) -> float:
    """The largest difference, relative to each tensor's largest value."""
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max() / b[name].abs().max()) for name in b)


def test_the_converted_recipe_repeats_the_reference_on_one_rank_and_on_four(
    on_four_ranks: list[dict[str, Parameters]],
) -> None:
    published = on_four_ranks[0]["reference"]
    alone = reference_steps.ours(reference_steps.converted(), 0, 1)
    assert distance(alone, published) < 1e-10
    for rank in on_four_ranks:
        assert distance(rank["reference"], published) == 0
        assert distance(rank["ours"], published) < 1e-10


@pytest.mark.parametrize("left", ["bias_learning_rate", "weight_decay"])
def test_either_number_left_as_it_was_published_is_another_run(
    on_four_ranks: list[dict[str, Parameters]], left: str
) -> None:
    as_published = {"bias_learning_rate": "biases", "weight_decay": "weight_decay"}[left]
    rates = {**reference_steps.converted(), left: reference_steps.PUBLISHED[as_published]}
    assert distance(reference_steps.ours(rates, 0, 1), on_four_ranks[0]["reference"]) > 1e-4
