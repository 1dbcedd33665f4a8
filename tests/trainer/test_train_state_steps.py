"""One step in its forms: in pieces, in 16 bits, with a scaled loss. Several ranks: rank_laws.py.

Shape suffixes: 2 views, n images, d features, f of the backbone.
"""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from train_states import BATCH, CPU, built, views

from trainer import train_state
from trainer.data.pixels import normalise
from trainer.failures import Diverged
from trainer.objectives.barlow_twins import barlow_twins
from trainer.runtime import precision
from trainer.train_state import TrainState


def gradients(state: TrainState) -> list[Tensor]:
    return [p.grad.clone() for p in state.model.parameters()]


class _NoBatchNorm(nn.Module):
    feature_width = features = 8

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, stride=2)

    def forward(self, images: Tensor) -> Tensor:
        return self.convolution(images).tanh().mean((2, 3))


@pytest.mark.parametrize(
    "objective",
    [
        {"name": "barlow_twins"},
        {"name": "vicreg"},
        {"name": "nt_xent"},
        {"name": "infonce"},
        {"name": "information_bottleneck"},
        {"name": "w_mse", "sub_batch": 6},
        {"name": "view_distance", "variance": 2.0},
    ],
    ids=lambda objective: objective["name"],
)
@pytest.mark.parametrize("micro_batch", [2, 4, 12])
def test_pieces_without_batch_normalisation_give_the_plain_step(
    micro_batch: int, objective: dict[str, object], monkeypatch: pytest.MonkeyPatch
):
    results = []
    for chosen in (None, micro_batch):
        torch.manual_seed(0)
        monkeypatch.setattr(train_state, "build_backbone", lambda *_, **__: _NoBatchNorm())
        widths = {"widths": [4 if objective["name"] == "w_mse" else 16]}
        state = built(micro_batch=chosen, precision="fp64", projector=widths, objective=objective)
        losses = [state.update(*views(step), step, np.arange(BATCH)).terms.loss for step in (1, 2, 3)]
        results.append([*losses, *gradients(state), *(p.detach() for p in state.model.parameters())])
    # A covariance that is singular but for its floor magnifies the last bits by the inverse of that.
    tolerance = 1e-10 if objective["name"] == "information_bottleneck" else 1e-12
    for plain, in_pieces in zip(*results, strict=True):
        assert (plain - in_pieces).abs().max() <= tolerance * plain.abs().max()


def test_pieces_give_the_gradient_of_a_network_that_normalises_each_by_itself():
    state, same = built(micro_batch=4, precision="fp64"), built(precision="fp64")
    both = views(1)
    update = state.update(*both, 1)
    # One graph: every piece through the same network, view after view, the loss over all rows.
    pixels = [normalise(view, torch.float64) for view in both]
    parts = [same._written(torch.cat(piece)) for piece in zip(*(p.chunk(3) for p in pixels), strict=True)]
    (z_a, z_b), features = (
        [torch.cat([part[which].chunk(2)[view] for part in parts]) for view in (0, 1)] for which in (0, 1)
    )
    barlow_twins(z_a, z_b, 0.0051).loss.backward()
    torch.testing.assert_close(update.z_a_nd, z_a.detach(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(update.z_b_nd, z_b.detach(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(update.features_2nf, torch.stack(features), rtol=1e-12, atol=1e-14)
    largest = max(float(p.grad.abs().max()) for p in same.model.parameters())
    for found, parameter in zip(gradients(state), same.model.parameters(), strict=True):
        assert (found - parameter.grad).abs().max() <= 1e-12 * largest
    # Each piece of each view has moved the running statistics once.
    for name, buffer in same.model.named_buffers():
        torch.testing.assert_close(state.model.get_buffer(name), buffer, rtol=1e-12, atol=0)
    assert state.model["backbone"].layers[1].num_batches_tracked == 6


@pytest.mark.parametrize("half", ["bf16", "fp16"])
def test_embeddings_of_a_network_in_16_bits_are_of_32(half: str):
    state = built(precision=half)
    if half == "fp16":
        state._guard.scale.fill_(2.0**8)
    update = state.update(*views(1), 1)
    assert update.z_a_nd.dtype == update.terms.loss.dtype == torch.float32
    rounded = update.z_a_nd.to(precision.PRODUCT_DTYPES[half]).float()
    assert not torch.equal(update.z_a_nd, rounded)
    exact = built().update(*views(1), 1)
    # The network itself is in 16 bits.
    assert 1e-6 < float((update.terms.loss / exact.terms.loss - 1).detach().abs()) < 0.05
    assert float((update.gradient_norm / exact.gradient_norm - 1).abs()) < 0.1


def snapshot(state: TrainState) -> list[Tensor]:
    values = [v["momentum_buffer"] for v in state.state_dict()["optimizer"]["state"].values()]
    names = (name for name in state.model.state_dict() if not name.endswith("num_batches_tracked"))
    return [t.clone() for t in (*values, *(state.model.state_dict()[name] for name in names))]


def test_fp16_skips_a_step_that_overflows_and_halves_the_scale():
    state = built(precision="fp16")
    state._guard.scale.fill_(2.0**8)
    state.update(*views(1), 1)
    before = snapshot(state)
    state._guard.scale.fill_(2.0**120)
    update = state.update(*views(2), 2)
    assert not update.gradient_norm.isfinite()
    assert all(torch.equal(one, other) for one, other in zip(snapshot(state), before, strict=True))
    assert state._guard.scale == 2.0**119
    state._guard.scale.fill_(2.0**8)
    state.update(*views(2), 3)
    assert not any(torch.equal(one, other) for one, other in zip(snapshot(state), before, strict=True))
    state.raise_if_diverged()


def test_fp16_counts_skipped_steps_in_a_row_also_over_a_checkpoint(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(precision, "MOST_SKIPPED_IN_A_ROW", 3)
    state = built(precision="fp16")
    state._guard.scale.fill_(2.0**126)
    state.update(*views(1), 1)
    state.update(*views(2), 2)
    torch.save(state.state_dict(), tmp_path / "state.pt")
    resumed = built(precision="fp16")
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert resumed._guard.scale == 2.0**124
    before = snapshot(resumed)
    assert resumed.update(*views(3), 3).first_bad_step == 3
    resumed._guard.scale.fill_(2.0**8)
    update = resumed.update(*views(4), 4)
    assert update.gradient_norm.isfinite()
    assert update.first_bad_step == 3
    assert all(torch.equal(one, other) for one, other in zip(snapshot(resumed), before, strict=True))
    with pytest.raises(Diverged, match="3 steps up to step 3"):
        resumed.raise_if_diverged()


def test_twenty_skipped_steps_in_a_row_are_the_end_and_nineteen_are_not():
    guard = precision.StepGuard("fp16", CPU)
    bad, finite = torch.tensor(float("inf")), torch.tensor(1.0)
    for step in range(1, 20):
        assert not guard.admit(bad, step)
    assert guard.admit(finite, 20)
    for step in range(21, 41):
        assert guard.diverged_at == 0
        assert not guard.admit(bad, step)
    assert guard.diverged_at == 40
    assert not guard.admit(finite, 41)


def test_the_scale_grows_after_two_thousand_finite_steps():
    guard = precision.StepGuard("fp16", CPU)
    for step in range(1, 2001):
        assert guard.admit(torch.tensor(1.0), step)
        assert guard.scale == (2.0**16 if step < 2000 else 2.0**17)


def test_another_memory_layout_takes_over_a_checkpoint_and_goes_the_same_way(monkeypatch: pytest.MonkeyPatch):
    plain = built(precision="fp64")
    plain.update(*views(1), 1)
    monkeypatch.setattr(train_state, "memory_format", lambda *_: torch.channels_last)
    other = built(precision="fp64")
    convolution = other.model["backbone"].layers[3].weight
    assert convolution.is_contiguous(memory_format=torch.channels_last)
    other.load_state_dict(plain.state_dict())
    assert convolution.is_contiguous(memory_format=torch.channels_last)
    assert convolution.grad.stride() == convolution.stride()
    assert other._optimizer.state[convolution]["momentum_buffer"].stride() == convolution.stride()
    plain.update(*views(2), 2)
    other.update(*views(2), 2)
    for one, same in zip(plain.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(one, same, rtol=1e-10, atol=1e-12)
