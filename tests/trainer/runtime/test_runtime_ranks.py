"""One, two and four ranks compute the same: real gloo processes, different data on every rank, float64."""

from pathlib import Path

import pytest
import rank_laws
import ranks
import torch
from torch import Tensor, nn

from trainer.runtime.batch_norm import RunningStatistics, synchronise_batch_norm

TOLERANCES = {
    "batch_norm": 1e-12,
    "split_batch_norm": 1e-12,
    "compiled_batch_norm": 1e-12,
    "uneven_batch_norm": 1e-12,
    "objective": 1e-12,
    "vicreg": 1e-12,
    "nt_xent": 1e-12,
    "infonce": 1e-12,
    "w_mse": 1e-11,
    "view_distance": 1e-12,
    "infonce with its positive": 1e-12,
    "bottleneck": 1e-11,
    "barlow_twins_variants": 1e-12,
    "simsiam": 1e-12,
    "pcl": 1e-12,
    "health": 0.0,
    "view_moments": 1e-12,
    "view_pass": 1e-11,
    "closed_form": 1e-6,
    "lars": 1e-10,
    "sgd": 1e-8,
    "adamw": 1e-8,
    "pieces": 1e-10,
    "vicreg in pieces": 1e-10,
    "nt_xent in pieces": 1e-10,
    "infonce trained": 1e-10,
    "w_mse in pieces": 1e-10,
    "bottleneck in pieces": 1e-8,
    "predictor": 1e-8,
    "simsiam in pieces": 1e-8,
    "momentum copy": 1e-10,
    "frozen": 1e-10,
    "dropout": 1e-10,
    "rows": 0.0,
}


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Tensor]]:
    return rank_laws.all_laws(0, 1)


@pytest.fixture(scope="module", params=[2, 4])
def together(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    processes = ranks.start([rank_laws.__file__, folder], request.param, folder)
    assert ranks.finish(processes) == [0] * request.param, ranks.log(folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(request.param)]


def test_any_number_of_ranks_gives_the_same_numbers(alone, together):
    for law, tolerance in TOLERANCES.items():
        for name, expected in alone[law].items():
            for results in together:
                found = results[law][name]
                largest = max(expected.abs().max().item(), 1e-300)
                distance = (found.double() - expected.double()).abs().max().item()
                assert distance <= tolerance * largest, f"{law} {name}: off by {distance / largest:.1e} of its largest"


def test_ranks_end_with_the_same_bits(together):
    trained = [law for law, found in together[0].items() if "norm 1" in found]
    assert {"lars", "pieces", "momentum copy"} < set(trained)
    for law in trained:
        for results in together[1:]:
            for name, expected in together[0][law].items():
                assert torch.equal(results[law][name], expected), (law, name)


def test_one_rank_s_batch_norm_is_torch_s(alone):
    plain = nn.BatchNorm2d(3).double()
    synchronised = synchronise_batch_norm(nn.Sequential(plain))[0]
    assert synchronised.weight is plain.weight
    assert dict(synchronised.state_dict()).keys() == dict(plain.state_dict()).keys()
    generator = torch.Generator().manual_seed(0)
    x = 50 + torch.randn(16, 3, 4, 5, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(alone["batch_norm"]["0.running_mean"], 0.1 * x.mean((0, 2, 3)))
    torch.testing.assert_close(alone["batch_norm"]["0.running_var"], 0.9 + 0.1 * x.var((0, 2, 3)))


def test_batch_norm_without_affine_parameters_is_refused():
    with pytest.raises(ValueError, match="affine"):
        synchronise_batch_norm(nn.BatchNorm1d(2, affine=False))


def test_running_statistics_go_back_only_when_told():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 3), nn.BatchNorm1d(3))
    statistics = RunningStatistics(model)
    before = statistics.flat.clone()
    model(torch.full((4, 2), float("nan")))
    assert statistics.flat.isnan().any()
    statistics.restore_unless(torch.tensor(False), before)
    assert torch.equal(model[0].running_mean, torch.zeros(2))
    assert torch.equal(model[2].running_var, torch.ones(3))
    model(torch.randn(4, 2))
    moved = statistics.flat.clone()
    statistics.restore_unless(torch.tensor(True), before)
    assert torch.equal(statistics.flat, moved)
    assert not torch.equal(moved, before)
    # A state dict goes into the shared tensor.
    model.load_state_dict(nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 3), nn.BatchNorm1d(3)).state_dict())
    assert torch.equal(statistics.flat, before)
