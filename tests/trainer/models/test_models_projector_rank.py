"""A projector whose last layer has too few inputs: what is said of it is true of every batch."""

import pytest
import runs
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from barlow_lab.specs import SpecError, parse_spec
from trainer.models.projector import build_projector, rank_warning
from trainer.pretraining import pretrain


@settings(max_examples=30, deadline=None)
@given(rank=st.integers(2, 12), width=st.integers(2, 24), samples=st.integers(2, 40), seed=st.integers(0, 99))
def test_the_off_diagonal_sum_stays_above_what_is_said(rank, width, samples, seed):
    projector = build_projector(rank, [width], seed=seed).double()
    said = rank_warning(projector, samples)
    assert (said is None) == (rank >= min(width, samples - 1))
    features = torch.randn(200, rank, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    correlation = torch.corrcoef(projector(features).detach().T)
    off_diagonal = float(correlation.square().sum()) - width
    assert off_diagonal >= width * (width / rank - 1) - 1e-9


def test_the_run_says_so_and_goes_on(tmp_path):
    spec = runs.spec(projector={"widths": [6, 16]}, epochs=1)
    assert pretrain(spec, runs.context(tmp_path)).outcome == "ok"
    (warning,) = [e for e in runs.events(tmp_path, 1, "warning") if "projector" in e.data["message"]]
    assert "16 features of 6" in warning.data["message"]
    assert "at 26.67 or more; make the layer before it at least 16 wide" in warning.data["message"]


@pytest.mark.parametrize("widths", [[1], [64, 1], [0, 64], [-3]])
def test_less_than_two_features_are_a_bad_spec_with_the_reason(widths):
    with pytest.raises(SpecError, match=r"/projector/widths/\d: a projector of width .* no two features .* at least 2"):
        parse_spec({"kind": "pretrain", "data": "digits", "projector": {"widths": widths}})
