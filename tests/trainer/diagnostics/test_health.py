"""Health of embeddings: known answers, the words for them, a collapse that is told once, and a run that ends by it."""

from pathlib import Path

import pytest
import runs
import torch
from looks import Looking

from trainer.diagnostics.health import Health, alpha_req, directions, in_words, same, spread
from trainer.diagnostics.spectra import squared_singular_values
from trainer.failures import Diverged
from trainer.objectives.base import Terms
from trainer.pretraining import pretrain

VIEWS = (torch.zeros(1), torch.zeros(1))


def _embeddings(directions_used: int, features: int = 200, images: int = 400) -> torch.Tensor:
    """Embeddings that vary alike in so many directions, and in no other."""
    generator = torch.Generator().manual_seed(directions_used)
    waves = torch.randn(images, directions_used, generator=generator, dtype=torch.float64)
    waves = torch.linalg.qr(waves - waves.mean(0)).Q
    return (waves @ torch.linalg.qr(torch.randn(features, directions_used, generator=generator).double()).Q.mT).float()


def test_features_spread_evenly_have_the_spread_of_a_sphere_and_equal_ones_none():
    signs = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]).repeat(1, 1024)
    assert spread(signs * 7) == pytest.approx(1)
    assert spread(signs * 7) / 2048**0.5 == pytest.approx(0.0220971, abs=1e-7)
    assert spread(torch.ones(5, 3)) == 0


def test_a_power_law_is_found_again_and_too_few_ranks_tell_none():
    ranks = torch.arange(1, 129, dtype=torch.float64)
    assert alpha_req(ranks**-1.3) == pytest.approx(1.3)
    assert alpha_req(ranks[:14] ** -0.7) == pytest.approx(0.7)
    assert alpha_req(ranks[:13] ** -0.7) is None
    assert alpha_req(torch.zeros(128)) is None


def test_directions_are_counted_up_to_99_percent_of_the_variance():
    assert directions(torch.ones(200)) == 198
    assert directions(torch.tensor([98.0, 2, 0])) == 2
    assert directions(torch.tensor([99.0, 1, 0])) == 1
    assert directions(torch.zeros(4)) == 0


@pytest.mark.parametrize("shape", [(40, 7), (7, 40)])
def test_the_smaller_product_has_the_same_spectrum(shape: tuple[int, int]):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(squared_singular_values(x), torch.linalg.svdvals(x).square())


@pytest.mark.parametrize(
    ("spreads", "carrying", "shape", "collapse", "sentence"),
    [
        (0.9, 60, (256, 128), None, "60 of 128 directions carry 99 % of the variance"),
        (0.9, 12, (256, 128), None, "12 of 128 directions carry 99 % of the variance: few are in use"),
        (0.9, 1, (256, 128), "dimensional", "1 of 128 directions carries 99 % of the variance: dimensional collapse"),
        (0.9, 20, (2048, 8192), "dimensional", "20 of the 2,047 directions that 2,048 images can show carry"),
        (0.9, 21, (2048, 8192), None, "few are in use"),
        (0.09, 60, (256, 128), "complete", "the features spread by 0.09 of what evenly spread ones do (view a)"),
    ],
)
def test_words_for_health(spreads: float, carrying: int, shape: tuple[int, int], collapse: str | None, sentence: str):
    found = in_words({"a": spreads, "b": 1.0}, carrying, shape)
    assert sentence in "; ".join(found.said)
    assert found.collapse == collapse
    assert (found.why in found.said) is (collapse is not None)


def test_rows_are_the_same_up_to_rounding():
    rows = torch.rand(20, 7, generator=torch.Generator().manual_seed(0)) + 0.5
    noise = torch.randn(20, 7, generator=torch.Generator().manual_seed(1))
    for values, equal in (
        (rows, False), (rows[:1].repeat(20, 1), True), (torch.zeros(20, 7), True),
        (rows[:1] * (1 + 1e-7 * noise), True), (rows[:1] * (1 + 1e-2 * noise), False),
    ):  # fmt: skip
        assert same(values) is equal


def _told(folder: Path) -> list[tuple[str, str]]:
    warnings = [event.data for event in runs.events(folder, kind="warning")]
    return [(one["collapse"], one["message"]) for one in warnings]


def test_a_collapse_is_told_when_it_begins_and_not_again_until_it_has_ended(tmp_path: Path) -> None:
    looking = Looking(runs.context(tmp_path))
    healthy, line, constant = _embeddings(150), _embeddings(1), _embeddings(1)[:1].repeat(400, 1) + 1
    seen = [line, line, line, healthy, torch.full_like(line, torch.nan), line, constant, constant]
    words = [looking.at(Health, step, VIEWS, z, z).last_words for step, z in enumerate(seen, start=1)]
    assert [one is not None for one in words] == [False, True, True, False, False, True, True, True]
    assert [kind for kind, _ in _told(tmp_path)] == ["dimensional", "dimensional", "complete"]
    assert "step 2: 1 of 200 directions carries 99 % of the variance: dimensional collapse" in _told(tmp_path)[0][1]
    assert "step 7: the features of all 400 images are the same (view a)" in _told(tmp_path)[2][1]

    other = Looking(runs.context(tmp_path / "resumed"))
    health = other.at(Health, 1, VIEWS, healthy, healthy)
    health.load_state_dict(looking.at(Health, 9, VIEWS, line, line).state_dict())
    other.at(Health, 10, VIEWS, line, line)
    assert _told(tmp_path / "resumed") == []
    health.load_state_dict({})


@pytest.mark.parametrize(
    ("energy", "said"),
    [(1.04, "1.04 of what independent features would give at this batch size: nearly decorrelated"),
     (23.0, "23 of what independent features would give at this batch size: features repeat one another"),
     (0.5, "0.5 of what independent features would give at this batch size: decorrelated on this batch")],
)  # fmt: skip
def test_of_the_floor_is_spoken_only_where_the_objective_has_one(tmp_path: Path, energy: float, said: str) -> None:
    looking, z = Looking(runs.context(tmp_path)), _embeddings(150)
    parts, floor = {"off_diagonal": torch.tensor(energy * 50)}, {"noise_floor": 50.0}
    looking.terms = Terms(torch.zeros(()), parts, floor)
    assert said in looking.at(Health, 2, VIEWS, z, z).result["health"][0]
    looking.terms = Terms(torch.zeros(()), parts)
    assert "independent" not in str(looking.at(Health, 3, VIEWS, z, z).result)


def _spec(normalisation: str, **run: object):
    return runs.spec(
        objective={"name": "barlow_twins", "normalisation": normalisation},
        epochs=1,
        run={"record": {"correlation_every_epochs": 1}, **run},
    )


def test_the_result_has_the_sentences_of_the_last_look(tmp_path: Path) -> None:
    for normalisation, speaks in (("pearson", True), ("none", False)):
        end = pretrain(_spec(normalisation), runs.context(tmp_path / normalisation))
        assert end.result is not None
        assert any("of 16 directions" in one for one in end.result["health"])
        assert any("independent features" in one for one in end.result["health"]) is speaks
        assert end.message == "trained for 5 steps"


def test_stop_on_collapse_ends_the_run_as_diverged_with_the_sentence(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("trainer.diagnostics.health.COLLAPSED_SPREAD", 5.0)
    assert pretrain(_spec("pearson"), runs.context(tmp_path / "warned")).message.endswith("complete collapse")
    spec = _spec("pearson", stop_on=["collapse"])
    with pytest.raises(Diverged, match=r"step 5: the features spread by .* complete collapse; run\.stop_on") as caught:
        pretrain(spec, runs.context(tmp_path / "ended"))
    assert caught.value.step == 5
    assert not runs.events(tmp_path / "ended", kind="warning"), "what ends the run is said once"
