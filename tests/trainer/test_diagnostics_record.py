"""What is planted in a correlation matrix is found again in the file, the summary and the picture."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainer.diagnostics.correlation_record import BLOCKS, summarise, write_correlation_record
from trainer.diagnostics.effective_rank import effective_rank
from trainer.objectives.barlow_twins import barlow_twins


def _write(folder: Path, matrix: np.ndarray, samples: int = 101) -> tuple[dict[str, np.ndarray], dict]:
    event = write_correlation_record(
        folder / "correlation", matrix, samples=samples, step=1200, lambda_=0.5, loss=1.25, tick=lambda: None
    )
    event = json.loads(json.dumps(event, allow_nan=False))
    assert event["file"] == "correlation/step-00001200.npz"
    assert event["image"] == "correlation/step-00001200.png"
    with Image.open(folder / event["image"]) as picture:
        assert picture.size == (960, 460)
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10
    with np.load(folder / event["file"], allow_pickle=False) as file:
        return dict(file), event


def test_a_perfect_correlation_is_drawn_also_where_rounding_puts_it_above_one(tmp_path):
    pictures = []
    for name, value in (("exact", 1.0), ("rounded", np.nextafter(np.float32(1), np.float32(2)))):
        (tmp_path / name).mkdir()
        _, event = _write(tmp_path / name, np.eye(8, dtype=np.float32) * value)
        with Image.open(tmp_path / name / event["image"]) as picture:
            pictures.append(np.asarray(picture))
    assert np.array_equal(*pictures)


def test_identity(tmp_path):
    arrays, event = _write(tmp_path, np.eye(8, dtype=np.float32))
    summary = event["summary"]
    assert summary["diagonal"] == {"mean": 1.0, "min": 1.0, "max": 1.0}
    assert summary["off_diagonal_rms"] == summary["symmetry_defect"] == 0.0
    assert summary["off_diagonal_excess"] == pytest.approx(-0.5 * 8 * 7 / 100)
    assert summary["top_pairs"] == []
    assert summary["dead_features"] == {"count": 0, "first": []}
    assert sum(summary["histogram"]["counts"]) == 56
    assert summary["histogram"]["counts"][20] == 56
    assert event["dim"] == 8
    assert event["n"] == arrays["n"] == 101
    assert event["floor"] == arrays["floor"] == pytest.approx(0.56)
    assert arrays["step"] == 1200
    assert arrays["correlation"].dtype == np.float16
    np.testing.assert_array_equal(arrays["correlation"], np.eye(8))
    np.testing.assert_array_equal(arrays["diagonal"], np.ones(8))
    np.testing.assert_array_equal(arrays["row_energy"], np.zeros(8))


def test_one_correlated_pair_a_dead_feature_and_asymmetry(tmp_path):
    matrix = np.eye(8, dtype=np.float32)
    matrix[2, 5] = -0.75
    matrix[6] = matrix[:, 6] = 0
    arrays, event = _write(tmp_path, matrix)
    summary = event["summary"]
    assert summary["top_pairs"] == [{"i": 2, "j": 5, "value": -0.75}]
    assert summary["dead_features"] == {"count": 1, "first": [6]}
    assert summary["symmetry_defect"] == pytest.approx(1.0)  # C_52 knows nothing of C_25
    assert summary["off_diagonal"] == pytest.approx(0.75**2)
    assert summary["diagonal"]["min"] == 0.0
    assert arrays["row_energy"][2] == pytest.approx(0.75**2)
    assert arrays["row_energy"].sum() == pytest.approx(0.75**2)
    matrix[5, 2] = -0.75
    assert summarise(matrix, samples=101, lambda_=0.5)["symmetry_defect"] == 0.0


def test_patterns_planted_in_embeddings_come_through_the_objective(tmp_path):
    generator = torch.Generator().manual_seed(0)
    z_a, z_b = torch.randn(2, 400, 12, generator=generator)
    z_b[:, 3] = z_a[:, 3] * 2 + 1
    z_b[:, 7] = -z_a[:, 1]
    z_a[:, 9] = z_b[:, 9] = 4.2
    matrix = barlow_twins(z_a, z_b, 0.5).correlation.numpy()
    _, event = _write(tmp_path, matrix, samples=400)
    summary = event["summary"]
    assert summary["diagonal"]["max"] == pytest.approx(1.0, abs=1e-5)
    assert (summary["top_pairs"][0]["i"], summary["top_pairs"][0]["j"]) == (1, 7)
    assert summary["top_pairs"][0]["value"] == pytest.approx(-1.0, abs=1e-5)
    assert summary["dead_features"] == {"count": 1, "first": [9]}


def test_a_large_matrix_is_kept_in_blocks(tmp_path):
    dim = 1100  # not a multiple of the number of blocks
    matrix = np.zeros((dim, dim), dtype=np.float32)
    matrix[700, 30] = -0.5
    np.fill_diagonal(matrix, 1)
    arrays, event = _write(tmp_path, matrix)
    assert "correlation" not in arrays
    assert arrays["block_mean"].shape == arrays["block_rms"].shape == arrays["block_maximum"].shape == (BLOCKS, BLOCKS)
    starts = np.arange(BLOCKS) * dim // BLOCKS
    row, column = (int(np.searchsorted(starts, place, side="right")) - 1 for place in (700, 30))
    entries = float(np.diff(np.append(starts, dim))[row] * np.diff(np.append(starts, dim))[column])
    assert arrays["block_maximum"][row, column] == 0.5
    assert arrays["block_mean"][row, column] == pytest.approx(-0.5 / entries)
    assert arrays["block_rms"][row, column] == pytest.approx(0.5 / entries**0.5)
    assert (arrays["block_maximum"].diagonal() == 1).all()
    assert event["summary"]["top_pairs"] == [{"i": 700, "j": 30, "value": -0.5}]
    assert arrays["diagonal"].shape == (dim,)


def test_effective_rank_counts_directions():
    generator = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(64, 16, generator=generator, dtype=torch.float64)).Q
    assert effective_rank(directions) == pytest.approx(16)
    assert effective_rank(directions[:, :1].repeat(1, 16)) == pytest.approx(1, abs=1e-6)
    two = directions.clone()
    two[:, 2:] = 0
    assert effective_rank(two * 7) == pytest.approx(2)
