"""Spectra, the floor of the symmetry defect, an order by clusters, the whole matrix: known answers and NumPy's."""

from pathlib import Path

import numpy as np
import pytest
import runs
import stated_objective
import torch
from PIL import Image

from barlow_lab.specs.common import RecordSpec
from trainer.diagnostics.correlation_record import summarise, write_correlation_record
from trainer.diagnostics.correlation_statistics import FULL_UP_TO, correlation_statistics
from trainer.diagnostics.feature_order import by_clusters
from trainer.diagnostics.spectra import independent_spectrum
from trainer.pretraining import pretrain


def _pair(samples: int, features: int, rho: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two views of independent features, each of which correlates by `rho` with itself."""
    shared, a, b = torch.randn(3, samples, features, generator=torch.Generator().manual_seed(seed))
    return rho**0.5 * shared + (1 - rho) ** 0.5 * a, rho**0.5 * shared + (1 - rho) ** 0.5 * b


def _record(folder: Path, views: tuple[torch.Tensor, torch.Tensor], **asked: object) -> dict[str, np.ndarray]:
    _, arrays = write_correlation_record(
        folder, *views, step=1, off_diagonal_weight=None, loss=1.0, tick=lambda: None,
        asked=RecordSpec.model_validate(asked),
    )  # fmt: skip
    with np.load(folder / "step-00000001.npz", allow_pickle=False) as file:
        assert runs.same(dict(file), {name: np.asarray(values) for name, values in arrays.items()})
    return arrays


@pytest.mark.parametrize(("samples", "features"), [(30, 12), (12, 30), (16, 16)])
def test_both_ways_give_the_spectra_of_the_whole_matrices(samples: int, features: int) -> None:
    z_a, z_b = _pair(samples, features, 0.5)
    z_a[:, 3] = 1.0  # does not vary
    found = correlation_statistics(z_a, z_b, lambda: None).spectra
    views = {"a": z_a.double(), "b": z_b.double()}
    whole = {
        name: np.nan_to_num(stated_objective.correlation(x, y).numpy())
        for name, x, y in (("", views["a"], views["b"]), ("_a", views["a"], views["a"]), ("_b", views["b"], views["b"]))
    }
    for name, matrix in whole.items():
        expected = np.linalg.svd(matrix, compute_uv=False)[: min(samples, features)]
        np.testing.assert_allclose(found[f"spectrum{name}"], expected, atol=2e-5)
    assert found["spectrum_a"].sum() == pytest.approx(features - 1, abs=1e-4), "as many as vary"
    assert found["spectrum_b"].sum() == pytest.approx(features, abs=1e-4)


def test_independent_features_have_the_spectrum_of_marchenko_and_pastur() -> None:
    z, _ = _pair(400, 100, 0.0)
    found = correlation_statistics(z, z, lambda: None).spectra["spectrum_a"]
    np.testing.assert_allclose(found, independent_spectrum(400, 100), atol=0.06)
    assert independent_spectrum(400, 100).sum() == pytest.approx(100, rel=0.01)
    few = independent_spectrum(33, 128)
    assert len(few) == 32
    assert few.sum() == pytest.approx(128, rel=0.01)
    assert (np.diff(few) < 0).all()


@pytest.mark.parametrize(("rho", "expected"), [(0.0, 31.492), (0.8, 11.337)])
def test_the_floor_of_the_symmetry_defect_is_met_by_independent_features(rho: float, expected: float) -> None:
    """32 features of 64 samples: 2 (1 - rho^2) d (d - 1) / (N - 1)."""
    told, met = [], []
    for seed in range(30):
        found = correlation_statistics(*_pair(64, 32, rho, seed), lambda: None)
        summary = summarise(found, off_diagonal_weight=None)
        told.append(summary["symmetry_defect_floor"] ** 2 * 2 * summary["off_diagonal"])
        met.append(summary["symmetry_defect"] ** 2 * 2 * summary["off_diagonal"])
    assert np.mean(told) == pytest.approx(expected, rel=0.03)
    assert np.mean(met) == pytest.approx(expected, rel=0.03)


def test_the_scaled_histogram_counts_each_off_diagonal_entry_once() -> None:
    z_a, z_b = _pair(64, 32, 0.9)
    z_b[:, 1] = z_a[:, 0]
    found = correlation_statistics(z_a, z_b, lambda: None)
    assert found.scaled_histogram.sum() == 32 * 31
    assert found.scaled_histogram[-1] == 1, "of a correlation of 1, and on the diagonal none is counted"
    edges = np.linspace(-8.125, 8.125, 66)
    spread = np.average(((edges[1:] + edges[:-1]) / 2) ** 2, weights=found.scaled_histogram) ** 0.5
    assert spread == pytest.approx(1, abs=0.15)


def test_an_order_by_clusters_puts_those_that_correlate_beside_each_other(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    source = torch.randn(200, 4, generator=generator)
    members = torch.arange(24) % 4
    z_a, z_b = (source[:, members] + 0.3 * torch.randn(200, 24, generator=generator) for _ in range(2))
    arrays = _record(tmp_path, (z_a, z_b), heatmap_order="clusters")
    assert sorted(arrays["order"]) == list(range(24))
    assert np.count_nonzero(np.diff(members.numpy()[arrays["order"]])) == 3
    assert "order" not in _record(tmp_path, (z_a, z_b))
    assert sorted(by_clusters(np.eye(3))) == [0, 1, 2]


def test_the_whole_matrix_is_kept_on_request_beside_its_blocks(tmp_path: Path) -> None:
    z_a, z_b = _pair(20, FULL_UP_TO + 3, 0.5)
    arrays = _record(tmp_path, (z_a, z_b), whole_correlation=True, heatmap_order="clusters")
    assert arrays["correlation"].dtype == np.float16
    stated = stated_objective.correlation(z_a.double(), z_b.double())
    np.testing.assert_allclose(arrays["correlation"], stated, atol=1e-3)
    assert arrays["block_rms"].shape == (256, 256)
    assert "correlation" not in _record(tmp_path, (z_a, z_b))


def test_the_picture_is_drawn_where_it_is_asked_for_and_the_run_stays_the_same(tmp_path: Path) -> None:
    ends = []
    for name, record in (("asked", {"spectra": True}), ("plain", {})):
        record = {"metrics_every_steps": 1, "correlation_every_epochs": 10, **record}
        end = pretrain(runs.spec(epochs=1, run={"record": record}), runs.context(tmp_path / name))
        assert end.result is not None
        ends.append((end.result["backbone"], end.result["health"]))
    pictures = [one for one in runs.events(tmp_path / "asked", kind="image") if one.data["key"] == "spectrum"]
    assert [(one.step, one.data["file"]) for one in pictures] == [
        (step, f"spectrum/step-{step:08d}.png") for step in (0, 5)
    ]
    with Image.open(tmp_path / "asked/attempts/0001" / pictures[-1].data["file"]) as picture:
        assert picture.size == (960, 960)
    assert all(one.data["key"] != "spectrum" for one in runs.events(tmp_path / "plain", kind="image"))
    assert ends[0] == ends[1]
    assert runs.series(tmp_path / "asked") == runs.series(tmp_path / "plain")
