"""Batch normalisation of two views in one forward pass: what two passes would give. Several ranks: rank_laws.py."""

import pytest
import torch
from torch import Tensor, nn

from trainer.runtime.batch_norm import RunningStatistics, SynchronisedBatchNorm, synchronise_batch_norm

SHAPES = {1: (6, 4), 2: (6, 4, 5, 3)}


def _norm(dimensions: int, dtype: torch.dtype) -> nn.Module:
    norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}[dimensions](4).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, -1.0, 2.0, 1.0]))
        norm.bias.copy_(torch.tensor([0.1, 0.2, 0.3, 0.0]))
    return norm


def _gradients(outputs: list[Tensor], inputs: list[Tensor], norm: nn.Module, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    loss = sum((out * torch.randn(out.shape, generator=generator, dtype=out.dtype)).sum() for out in outputs)
    return list(torch.autograd.grad(loss, [*inputs, norm.weight, norm.bias]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dimensions", [1, 2])
def test_two_views_in_one_pass_have_the_bits_of_two_passes(dimensions: int, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(0)
    views = [
        (scale * (shift + torch.randn(SHAPES[dimensions], generator=generator, dtype=dtype))).requires_grad_()
        for scale, shift in ((1.0, 0.0), (3.0, 50.0))
    ]
    plain, split = _norm(dimensions, dtype), synchronise_batch_norm(_norm(dimensions, dtype), views=2)
    for _ in range(3):
        expected = [plain(view) for view in views]
        found = list(split(torch.cat(views)).chunk(2))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    for one, other in zip(_gradients(found, views, split), _gradients(expected, views, plain), strict=True):
        assert torch.equal(one, other)
    for name, buffer in plain.named_buffers():
        assert torch.equal(split.get_buffer(name), buffer), name
    assert split.num_batches_tracked == 6
    assert torch.equal(split.eval()(views[0]), plain.eval()(views[0]))


def test_one_view_is_plain_batch_normalisation():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(SHAPES[2], generator=generator)
    plain, split = _norm(2, torch.float32), synchronise_batch_norm(_norm(2, torch.float32))
    assert torch.equal(split(rows), plain(rows))
    assert all(torch.equal(split.get_buffer(name), buffer) for name, buffer in plain.named_buffers())


def test_held_statistics_stay_and_the_output_does_not_change():
    model = synchronise_batch_norm(nn.Sequential(_norm(1, torch.float32), nn.ReLU()), views=2)
    statistics = RunningStatistics(model)
    rows = torch.randn(SHAPES[1], generator=torch.Generator().manual_seed(0))
    tracked = model(rows)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with statistics.held():
        assert torch.equal(model(rows), tracked)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    model(rows)
    assert model[0].num_batches_tracked == 4


def test_a_network_keeps_its_memory_format_through_split_batch_normalisation():
    norm = synchronise_batch_norm(_norm(2, torch.float32), views=2)
    assert isinstance(norm, SynchronisedBatchNorm)
    rows = torch.randn(SHAPES[2]).to(memory_format=torch.channels_last)
    assert norm(rows).is_contiguous(memory_format=torch.channels_last)


def test_one_that_stands_in_several_places_stays_one():
    shared = _norm(1, torch.float32)
    model = nn.Sequential(shared, nn.Sequential(shared))
    model.add_module("again", shared)
    before = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    synchronise_batch_norm(model, views=2)
    assert isinstance(model[0], SynchronisedBatchNorm)
    assert model[0] is model[1][0] is model.again
    assert [name for name, _ in model.named_parameters(remove_duplicate=False)] == before
    statistics = RunningStatistics(model)
    model(torch.randn(SHAPES[1], generator=torch.Generator().manual_seed(0)))
    assert statistics.flat.numel() == 2 * 4
    assert torch.equal(statistics.flat[:4], model.again.running_mean)
    assert not torch.equal(model.again.running_mean, torch.zeros(4))
