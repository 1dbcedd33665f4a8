"""What is planted in a correlation matrix is found again in the file, the summary and the picture.

Shape suffixes: d features.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import stated_objective
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from barlow_lab.specs.common import RecordSpec
from trainer.diagnostics import correlation_statistics as statistics
from trainer.diagnostics.correlation_record import summarise, write_correlation_record
from trainer.diagnostics.correlation_statistics import BLOCKS, CorrelationStatistics, correlation_statistics
from trainer.diagnostics.effective_rank import effective_rank, rankme, singular_values
from trainer.diagnostics.heatmap import draw_heatmap


def _embeddings(matrix: np.ndarray, samples: int = 101) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of two views (samples, d), float32, whose correlation matrix this is (a diagonal C^T C is needed)."""
    planted = torch.from_numpy(matrix).double()
    features = len(planted)
    waves = stated_objective.uncorrelated(samples, 2 * features)
    own = (1 - planted.square().sum(0)).clamp(min=0).sqrt()
    z_a, z_b = waves[:, :features].clone(), waves[:, :features] @ planted + waves[:, features:] * own
    for z, alive in ((z_a, planted.any(1)), (z_b, planted.any(0))):
        z[:, ~alive] = 4.2
    return z_a.float() * 3 + 1, z_b.float()


def _write(
    folder: Path, views: tuple[torch.Tensor, torch.Tensor], asked: RecordSpec = RecordSpec.model_validate({})
) -> tuple[dict[str, np.ndarray], dict]:
    event, _ = write_correlation_record(
        folder / "correlation", *views, step=1200, off_diagonal_weight=0.5, loss=1.25, tick=lambda: None,
        asked=asked,
    )  # fmt: skip
    event = json.loads(json.dumps(event, allow_nan=False))
    assert event["file"] == "correlation/step-00001200.npz"
    assert event["image"] == "correlation/step-00001200.png"
    with Image.open(folder / event["image"]) as picture:
        assert picture.size == (960, 960), "a square, as tiles are"
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10
    with np.load(folder / event["file"], allow_pickle=False) as file:
        return dict(file), event


def test_a_perfect_correlation_is_drawn_also_where_rounding_puts_it_above_one(tmp_path):
    arrays, event = _write(tmp_path, _embeddings(np.eye(8)))
    pictures = []
    for value in (1.0, np.nextafter(np.float32(1), np.float32(2))):
        exact = {**arrays, "correlation": np.eye(8, dtype=np.float32) * value, "diagonal": np.full(8, value)}
        draw_heatmap(tmp_path / "picture.png", exact, event["summary"], title=())
        with Image.open(tmp_path / "picture.png") as picture:
            pictures.append(np.asarray(picture))
    assert np.array_equal(*pictures)


def test_identity(tmp_path):
    arrays, event = _write(tmp_path, _embeddings(np.eye(8)))
    summary = event["summary"]
    assert summary["diagonal"] == {name: pytest.approx(1, abs=1e-6) for name in ("mean", "min", "max")}
    assert summary["off_diagonal_rms"] == pytest.approx(0, abs=1e-6)
    assert summary["off_diagonal_excess"] == pytest.approx(-0.5 * 8 * 7 / 100)
    assert all(abs(pair["value"]) < 1e-6 for pair in summary["top_pairs"])
    assert summary["dead_features"] == {"count": 0, "first": []}
    assert sum(summary["histogram"]["counts"]) == 56
    assert summary["histogram"]["counts"][20] == 56
    assert event["dim"] == 8
    assert event["n"] == arrays["n"] == 101
    assert event["floor"] == arrays["floor"] == pytest.approx(0.56)
    assert arrays["step"] == 1200
    assert arrays["correlation"].dtype == np.float16
    np.testing.assert_allclose(arrays["correlation"], np.eye(8), atol=1e-6)
    np.testing.assert_allclose(arrays["diagonal"], np.ones(8), atol=1e-6)
    np.testing.assert_allclose(arrays["row_energy"], np.zeros(8), atol=1e-12)


def test_one_correlated_pair_a_dead_feature_and_asymmetry(tmp_path):
    matrix = np.zeros((8, 8))
    matrix[2, 5] = -0.75
    matrix[[0, 1, 3, 4, 7], [0, 1, 3, 4, 7]] = 1
    arrays, event = _write(tmp_path, _embeddings(matrix))
    summary = event["summary"]
    assert (summary["top_pairs"][0]["i"], summary["top_pairs"][0]["j"]) == (2, 5)
    assert summary["top_pairs"][0]["value"] == pytest.approx(-0.75)
    assert abs(summary["top_pairs"][1]["value"]) < 1e-6
    assert summary["dead_features"] == {"count": 1, "first": [6]}
    assert not arrays["correlation"][6].any()
    assert summary["symmetry_defect"] == pytest.approx(1.0)  # C_52 knows nothing of C_25
    assert summary["off_diagonal"] == pytest.approx(0.75**2)
    assert summary["diagonal"]["min"] == pytest.approx(0, abs=1e-6)
    assert arrays["row_energy"][2] == pytest.approx(0.75**2)
    assert arrays["row_energy"].sum() == pytest.approx(0.75**2)
    matrix[5, 2] = -0.75
    assert summarise(_statistics(_embeddings(matrix)), off_diagonal_weight=0.5)["symmetry_defect"] < 1e-6


def _statistics(views: tuple[torch.Tensor, torch.Tensor]) -> CorrelationStatistics:
    return correlation_statistics(*views, tick=lambda: None)


def test_a_view_with_itself_is_symmetric_to_the_last_bit():
    z = torch.randn(50, 12, generator=torch.Generator().manual_seed(1))
    assert summarise(_statistics((z, z)), off_diagonal_weight=0.5)["symmetry_defect"] == 0.0
    collapsed = torch.full((50, 12), 3.0)
    assert summarise(_statistics((collapsed, collapsed)), off_diagonal_weight=0.5)["symmetry_defect"] == 0.0
    assert _statistics((collapsed, collapsed)).top_pairs == []


def test_patterns_planted_in_embeddings_are_found(tmp_path):
    generator = torch.Generator().manual_seed(0)
    z_a, z_b = torch.randn(2, 400, 12, generator=generator)
    z_b[:, 3] = z_a[:, 3] * 2 + 1
    z_b[:, 7] = -z_a[:, 1]
    z_a[:, 9] = z_b[:, 9] = 4.2
    arrays, event = _write(tmp_path, (z_a, z_b))
    summary = event["summary"]
    assert summary["diagonal"]["max"] == pytest.approx(1.0, abs=1e-5)
    assert (summary["top_pairs"][0]["i"], summary["top_pairs"][0]["j"]) == (1, 7)
    assert summary["top_pairs"][0]["value"] == pytest.approx(-1.0, abs=1e-5)
    assert summary["dead_features"] == {"count": 1, "first": [9]}
    others = [i for i in range(12) if i != 9]
    stated = stated_objective.correlation(z_a[:, others].double(), z_b[:, others].double())
    np.testing.assert_allclose(arrays["correlation"][np.ix_(others, others)], stated, atol=1e-3)


def test_a_large_matrix_is_kept_in_blocks(tmp_path):
    dim = 1100  # not a multiple of the number of blocks
    matrix = np.zeros((dim, dim))
    np.fill_diagonal(matrix, 1)
    matrix[30, 30] = 0
    matrix[700, 30] = -0.5
    arrays, event = _write(tmp_path, _embeddings(matrix, samples=2 * dim + 1))
    assert "correlation" not in arrays
    assert arrays["block_mean"].shape == arrays["block_rms"].shape == arrays["block_maximum"].shape == (BLOCKS, BLOCKS)
    starts = np.arange(BLOCKS) * dim // BLOCKS
    row, column = (int(np.searchsorted(starts, place, side="right")) - 1 for place in (700, 30))
    entries = float(np.diff(np.append(starts, dim))[row] * np.diff(np.append(starts, dim))[column])
    assert arrays["block_maximum"][row, column] == pytest.approx(0.5)
    assert arrays["block_mean"][row, column] == pytest.approx(-0.5 / entries, rel=1e-3)
    assert arrays["block_rms"][row, column] == pytest.approx(0.5 / entries**0.5, rel=1e-3)
    np.testing.assert_allclose(arrays["block_maximum"].diagonal(), 1, rtol=1e-5)
    pair = event["summary"]["top_pairs"][0]
    assert (pair["i"], pair["j"], pair["value"]) == (700, 30, pytest.approx(-0.5))
    assert arrays["diagonal"].shape == (dim,)
    assert (tmp_path / event["file"]).stat().st_size < 400_000


class _Largest(TorchDispatchMode):
    """Remembers how many numbers the largest tensor of any operation has."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return out


@pytest.mark.parametrize("dim", [512, 525])
def test_by_tiles_the_numbers_are_those_of_the_whole_matrix_which_never_exists(monkeypatch, dim: int):
    """Against NumPy over the whole of C, in float64."""
    generator = torch.Generator().manual_seed(dim)
    shared = torch.randn(60, dim, generator=generator)
    z_a, z_b = (shared + torch.randn(60, dim, generator=generator) + 2 for _ in range(2))
    z_a[:, 77] = z_b[:, 77] = 0.1
    z_b[:, 400] = -z_a[:, 3]
    monkeypatch.setattr(statistics, "FULL_UP_TO", dim - 1)
    monkeypatch.setattr(statistics, "TILE", 2**15)
    ticks = []
    with _Largest() as largest:
        seen = correlation_statistics(z_a, z_b, lambda: ticks.append(None))
    assert largest.numbers < dim**2
    assert len(ticks) >= dim**2 / 2**15

    c = np.nan_to_num(stated_objective.correlation(z_a.double(), z_b.double()).numpy())
    c[77] = c[:, 77] = 0
    off = c - np.diag(c.diagonal())
    np.testing.assert_allclose(seen.diagonal_d, c.diagonal(), atol=1e-6)
    np.testing.assert_allclose(seen.row_energy_d, np.square(off).sum(1), rtol=1e-6)
    assert seen.asymmetry == pytest.approx(np.square(c - c.T).sum(), rel=1e-5)
    counts, _ = np.histogram(np.clip(off[~np.eye(dim, dtype=bool)], -1, 1), bins=41, range=(-1, 1))
    assert seen.histogram.sum() == dim * (dim - 1)
    assert np.abs(np.cumsum(seen.histogram - counts)).max() <= 3  # that lie within a rounding of an edge
    largest_pairs = np.argsort(-np.abs(off), axis=None)[:10]
    assert [i * dim + j for i, j, _ in seen.top_pairs] == largest_pairs.tolist()
    np.testing.assert_allclose([value for *_, value in seen.top_pairs], off.ravel()[largest_pairs], atol=1e-6)
    assert seen.dead.tolist() == [77]
    assert seen.full_dd is None
    starts = np.arange(BLOCKS) * dim // BLOCKS
    sizes = np.diff(np.append(starts, dim))
    for name, reduce, values in (("mean", np.add, c), ("rms", np.add, c**2), ("maximum", np.maximum, abs(c))):
        blocks = reduce.reduceat(reduce.reduceat(values, starts, 0), starts, 1)
        blocks = blocks if name == "maximum" else blocks / np.outer(sizes, sizes)
        np.testing.assert_allclose(seen.blocks[name], blocks**0.5 if name == "rms" else blocks, atol=1e-6)


def test_a_heatmap_holds_nothing_of_the_one_before(tmp_path):
    """Axes and ticks are drawn once for all of a run."""
    generator = torch.Generator().manual_seed(3)
    for name, samples in (("one", 8), ("other", 200), ("again", 8)):
        z_a, z_b = torch.randn(2, samples, 12, generator=generator.manual_seed(samples))
        write_correlation_record(
            tmp_path / name, z_a, z_b + z_a, step=1, off_diagonal_weight=None, loss=samples, tick=lambda: None,
            asked=RecordSpec(),
        )  # fmt: skip
    one, other, again = (
        np.asarray(Image.open(tmp_path / name / "step-00000001.png")) for name in ("one", "other", "again")
    )
    assert one.shape == (960, 960, 3)
    assert not np.array_equal(one, other)
    assert np.array_equal(one, again)


def test_effective_rank_counts_directions():
    generator = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(64, 16, generator=generator, dtype=torch.float64)).Q
    assert effective_rank(singular_values(directions)) == pytest.approx(16)
    assert effective_rank(singular_values(directions[:, :1].repeat(1, 16))) == pytest.approx(1, abs=1e-6)
    two = directions.clone()
    two[:, 2:] = 0
    assert effective_rank(singular_values(two * 7)) == pytest.approx(2)


@pytest.mark.parametrize(
    ("singular", "plain", "published"),
    [
        (torch.ones(64), 64.0, 64.00129),
        (torch.eye(64)[0], 1.0, 1.0001014),
        (torch.eye(1, 8192)[0], 1.0, 1.01329),
        (torch.tensor([3.0, 1.0]), 1.7547654, 1.7547654),
    ],
    ids=["even", "one-of-64", "one-of-8192", "three-to-one"],
)
def test_rankme_is_the_effective_rank_with_its_epsilon(singular, plain, published):
    assert effective_rank(singular.double()) == pytest.approx(plain, abs=1e-6)
    assert rankme(singular.double()) == pytest.approx(published, abs=1e-5)
