"""The information plane: known answers in nats, estimates that do not depend on the batch, its way through a run."""

import math
from pathlib import Path

import pytest
import runs
import torch
from looks import Looking
from PIL import Image

from service.mlflow_layout import metric_name
from trainer.diagnostics.gaussian_information import QUANTITIES, entropy, informations, log_determinant_of
from trainer.diagnostics.information_plane import InformationPlane
from trainer.objectives.log_determinants import bias_of_log_determinant
from trainer.pretraining import pretrain

VIEWS = (torch.zeros(1), torch.zeros(1))


def _pair(samples: int, features: int, seed: int, signal: float = 3.0, noise: float = 1.0):
    """Two views of the same signal, each with noise of its own, of these variances."""
    shared, a, b = torch.randn(3, samples, features, generator=torch.Generator().manual_seed(seed))
    return signal**0.5 * shared + noise**0.5 * a, signal**0.5 * shared + noise**0.5 * b


def _mean(samples: int, features: int, most: int, repeats: int, **of: float) -> dict[str, float]:
    """Of many batches, for each direction."""
    found = [informations(*_pair(samples, features, seed, **of), most) for seed in range(repeats)]
    directions = min(features, most)
    return {name: sum(one[name] for one in found) / repeats / directions for name in found[0]}


def test_the_entropy_of_a_normal_law_of_this_log_determinant() -> None:
    assert entropy(0.0, 1) == pytest.approx(1.4189385, abs=1e-7)
    assert entropy(math.log(8), 3) == pytest.approx(5.2965364, abs=1e-7)
    # Views D4 + n and D4 - n: C_Z = 1.02 I, C_{Z|X} = 0.04 I.
    assert entropy(2 * math.log(1.02), 2) - entropy(2 * math.log(0.04), 2) == pytest.approx(3.2386785, abs=1e-7)


@pytest.mark.parametrize(
    ("samples", "features", "most", "repeats"), [(4096, 2, 2, 12), (80, 32, 32, 40), (80, 512, 32, 40)]
)
def test_signal_3_and_noise_1_are_half_of_log_4_at_each_width_and_batch(samples, features, most, repeats) -> None:
    """0.6931472 nats, and 0.4133393 between views; 80 images show 32 directions poorly, and 512 not at all."""
    found = _mean(samples, features, most, repeats)
    assert tuple(found) == QUANTITIES
    assert found["information"] == pytest.approx(0.6931472, abs=0.015)
    assert found["view_information"] == pytest.approx(0.4133393, abs=0.02)
    assert found["entropy"] == pytest.approx(1.4189385, abs=0.015)
    assert found["conditional_entropy"] == pytest.approx(1.4189385 - 0.6931472, abs=0.02)


@pytest.mark.parametrize(
    "variances",
    [torch.ones(32), torch.arange(1, 33) ** -2.0, torch.cat([torch.ones(8), torch.zeros(24)]), torch.zeros(32)],
    ids=["white", "power law", "rank 8", "none"],
)
def test_the_log_determinant_is_right_on_average_also_where_the_floor_is_above_it(variances: torch.Tensor) -> None:
    """Of 64 samples; the plain one is off by up to 10."""
    free, floor, found = 63, 1e-3, []
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        x = torch.randn(free, 32, generator=generator, dtype=torch.float64) * variances.sqrt()
        found.append(log_determinant_of(torch.linalg.eigvalsh(x.mT @ x / free).clamp(min=0), free, floor))
    exact = float((variances.double() + floor).log().sum())
    assert sum(found) / len(found) == pytest.approx(exact, abs=-0.5 * math.log(1 - 32 / 63) + 0.25)


def test_without_a_floor_in_its_way_it_is_less_the_bias_that_is_known() -> None:
    s = torch.tensor([1.0, 2, 4])
    found = log_determinant_of(s, 100, 1e-9)
    bias = bias_of_log_determinant(3, 101)
    assert bias is not None
    assert found == pytest.approx(2.0794415 - bias + 0.5 * math.log(1 - 3 / 100), abs=1e-3)
    assert log_determinant_of(torch.zeros(5), 9, 1e-3) == pytest.approx(5 * math.log(1e-3))


def test_equal_views_leave_the_floor_alone_and_independent_ones_share_nothing() -> None:
    z, other = _pair(200, 4, 0, signal=0.0)
    same = informations(z, z, 32)
    assert same["conditional_entropy"] == pytest.approx(entropy(4 * math.log(1e-3), 4))
    found = informations(z, other, 32)
    assert abs(found["information"]) < 0.2
    assert abs(found["view_information"]) < 0.2
    constant = torch.ones(200, 4)
    assert informations(constant, constant, 32)["information"] == pytest.approx(0, abs=1e-9)


def test_what_a_batch_is_too_small_for_is_left_out() -> None:
    z = torch.randn(2, 10, 4, generator=torch.Generator().manual_seed(0))
    assert tuple(informations(*z, 32)) == QUANTITIES
    assert tuple(informations(*z[:, :9], 32)) == QUANTITIES[:3]
    assert informations(*z[:, :5], 32) == {}


def test_it_says_once_what_is_left_out_and_warns_where_the_picture_was_asked_for(tmp_path: Path, capsys) -> None:
    z = torch.randn(2, 33, 60, generator=torch.Generator().manual_seed(0))
    for asked in (False, True):
        looking = Looking(runs.context(tmp_path / str(asked)), information_plane=asked)
        for step in (2, 3):
            looking.at(InformationPlane, step, VIEWS, *z)
        said = capsys.readouterr().out
        assert said.count("does not show all of the information plane of 32 directions of the backbone and 32") == 1
        assert "lower run.record.information_directions" in said
        assert len(runs.events(tmp_path / str(asked), kind="warning")) == asked
        assert not runs.events(tmp_path / str(asked), kind="image")
    looking = Looking(runs.context(tmp_path / "fewer"), information_directions=8)
    looking.at(InformationPlane, 2, VIEWS, *z)
    assert "I(A;B)" in capsys.readouterr().out
    assert not looking.at(InformationPlane, 3, VIEWS, torch.full_like(z[0], torch.nan), z[1]).state_dict()[
        "information_plane"
    ][1:], "nothing is told of embeddings that are not finite"


def test_backbone_and_embedding_are_recorded_apart_and_stand_behind_in_mlflow(tmp_path: Path) -> None:
    looking, z, features = Looking(runs.context(tmp_path)), _pair(80, 4, 0), _pair(80, 6, 1, signal=9.0)
    looking.at(InformationPlane, 2, VIEWS, *z, features)
    found = runs.series(tmp_path)
    assert {name for name, _ in found} == set(InformationPlane.metric_names)
    for part, pair in (("backbone", features), ("embedding", z)):
        for quantity, value in informations(*pair, 32).items():
            assert found[f"{quantity}_{part}", 2] == value
    assert all(metric_name(name) == f"training_{name}" for name in InformationPlane.metric_names)


def _spec(**record: object):
    record = {"correlation_every_epochs": 1, "information_directions": 8, **record}
    return runs.spec(epochs=2, run={"checkpoint": {"every_epochs": 1}, "record": record})


def test_the_picture_shows_the_way_since_the_beginning_after_a_resume_too(tmp_path: Path, monkeypatch) -> None:
    """And the run has the bits of one without it."""
    drawn: list[list[float]] = []
    draw = "trainer.diagnostics.information_plane.draw_information_plane"
    plain = pretrain(_spec(), runs.context(tmp_path / "plain"))
    asked = pretrain(_spec(information_plane=True), runs.context(tmp_path / "whole"))
    assert plain.result is not None
    assert asked.result is not None
    assert plain.result["backbone"] == asked.result["backbone"]
    assert runs.series(tmp_path / "plain") == runs.series(tmp_path / "whole")
    images = [event for event in runs.events(tmp_path / "whole", kind="image") if event.data["key"] != "views"]
    assert [(event.step, event.data["file"]) for event in images] == [
        (step, f"information-plane/step-{step:08d}.png") for step in (0, 5, 10)
    ]
    with Image.open(tmp_path / "whole/attempts/0001" / images[-1].data["file"]) as picture:
        assert picture.size == (960, 960)

    monkeypatch.setattr(draw, lambda path, way: drawn.append([one["step"] for one in way]))
    (tmp_path / "whole/attempts/0001/checkpoints/step-00000010/state.pt").write_bytes(b"")
    assert pretrain(_spec(information_plane=True), runs.context(tmp_path / "whole", 2)).outcome == "ok"
    assert drawn == [[0, 5, 10]]
