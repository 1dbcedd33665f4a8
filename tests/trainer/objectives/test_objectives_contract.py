"""What the loop does for an objective that asks for more than the embeddings: a momentum copy, the places of images, a
pass over them before epochs, a state. An objective of this file asks for all of it.

Shape suffixes: n images, d features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import runs
import torch
from torch import Tensor
from torch.nn import functional as F
from train_states import built, views

from barlow_lab.specs import SpecError, VicregSpec, parse_spec
from trainer import train_state
from trainer.objectives.base import ImageEmbeddings, Objective, Pauses, Run, Terms
from trainer.pretraining import pretrain
from trainer.pretraining.image_pass import ImagePass
from trainer.runtime.compiling import CompileChoice

STEPS, EPOCH = 20, 5


class Recalling(Objective):
    """An image is drawn to its other view, and to what it was before the epoch; both parts wane with the steps."""

    momentum = 0.9
    needs_indices = True

    def begin(self, run: Run) -> None:
        self.calls: list[Any] = ["begin"]
        self.steps = torch.zeros((), dtype=run.dtype, device=run.device)
        self.recalled_nd: Tensor | None = None

    def wants_images(self, epoch: int) -> bool:
        return epoch != 1

    def before_epoch(self, epoch: int, embeddings: ImageEmbeddings, pauses: Pauses) -> None:
        self.calls.append(("before_epoch", epoch))
        pauses.working()
        pauses.finished()
        assert embeddings.indices_n.tolist() == list(range(embeddings.images))
        self.recalled_nd = F.normalize(embeddings.values_nd)

    def before_step(self, step: int, indices_n: Tensor) -> None:
        self.calls.append(step)
        self.indices_n = indices_n

    def __call__(self, z_a_nd: Tensor, z_b_nd: Tensor) -> Terms:
        assert not z_b_nd.requires_grad
        drawn_nd = F.normalize(z_b_nd)
        if self.recalled_nd is not None:
            drawn_nd = drawn_nd + self.recalled_nd[self.indices_n]
        loss = (F.normalize(z_a_nd) - drawn_nd).square().mean() / (1 + self.steps)
        return Terms(loss, {})

    def after_step(self, good: Tensor) -> None:
        self.calls.append("after")
        self.steps += good

    def state_dict(self) -> dict[str, Any]:
        recalled = {} if self.recalled_nd is None else {"recalled": self.recalled_nd}
        return {"steps": self.steps, **recalled}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps.copy_(state["steps"])
        self.recalled_nd = state.get("recalled")


@pytest.fixture
def recalling(monkeypatch: pytest.MonkeyPatch) -> list[Recalling]:
    """The objectives that were built, in their order."""
    made: list[Recalling] = []

    def build(spec: object) -> Recalling:
        made.append(Recalling(spec))
        return made[-1]

    monkeypatch.setattr(train_state, "build_objective", build)
    return made


def test_the_loop_calls_the_hooks_in_their_order(tmp_path: Path, recalling: list[Recalling]) -> None:
    assert pretrain(runs.spec(epochs=3), runs.context(tmp_path)).outcome == "ok"
    steps = [[call for step in range(1 + EPOCH * n, 1 + EPOCH * (n + 1)) for call in (step, "after")] for n in range(3)]
    first, third = ("before_epoch", 0), ("before_epoch", 2)
    assert recalling[0].calls == ["begin", first, *steps[0], *steps[1], third, *steps[2]]


@pytest.mark.parametrize("stop_at", [EPOCH + 2, 2 * EPOCH], ids=["within an epoch", "between two"])
def test_stopped_it_goes_on_to_the_same_bits(tmp_path: Path, recalling: list[Recalling], stop_at: int) -> None:
    assert pretrain(runs.spec(), runs.context(tmp_path / "whole")).outcome == "ok"
    stopped = runs.context(tmp_path / "run")
    stopped.stop.requested = lambda step: step == stop_at  # type: ignore[method-assign]
    assert pretrain(runs.spec(), stopped).outcome == "stopped"
    _goes_on(tmp_path, recalling, stop_at, passes=[2, 3] if stop_at < 2 * EPOCH else [3])


@pytest.mark.parametrize("stop_at", [0, 2 * EPOCH])
def test_a_stop_reaches_the_pass_and_the_next_attempt_makes_it(
    tmp_path: Path, recalling: list[Recalling], monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    assert pretrain(runs.spec(), runs.context(tmp_path / "whole")).outcome == "ok"
    context, begun = runs.context(tmp_path / "run"), []
    embeddings = ImagePass._embeddings

    def noting(self: ImagePass, *given: Any) -> ImageEmbeddings:
        begun.append(context.step)
        return embeddings(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(ImagePass, "_embeddings", noting)
        patch.setattr(context.stop, "requested_now", lambda: begun[-1] == stop_at)
        assert pretrain(runs.spec(), context).outcome == "stopped"
    assert context.step == stop_at
    _goes_on(tmp_path, recalling, stop_at, passes=[2, 3] if stop_at else [0, 2, 3])


def _goes_on(folder: Path, recalling: list[Recalling], step: int, passes: list[int]) -> None:
    assert pretrain(runs.spec(), runs.context(folder / "run", 2)).outcome == "ok"
    assert runs.resume_step(folder / "run", 2) == step
    assert [call[1] for call in recalling[-1].calls if isinstance(call, tuple)] == passes
    assert runs.series(folder / "run") == runs.series(folder / "whole")
    whole = runs.checkpoint(folder / "whole", 1, STEPS)
    assert whole.keys() >= {"momentum_network", "objective", "image_pass"}
    found = runs.checkpoint(folder / "run", 2, STEPS)
    for part in ("model", "optimizer", "momentum_network", "objective", "image_pass"):
        assert runs.same(found[part], whole[part]), part


def test_the_momentum_copy_follows_a_step_and_a_step_that_is_skipped_moves_nothing(recalling: list[Recalling]) -> None:
    state = built(precision="fp16")
    assert state.momentum_network is not None
    assert state._guard.scale is not None
    state._guard.scale.fill_(2.0**8)
    before = _numbers(state.looked_at)
    state.update(*views(1), 1, _places())
    assert recalling[0].steps == 1
    for name, parameter in state.looked_at.named_parameters():
        expected = 0.9 * before[name] + 0.1 * state.model.get_parameter(name).detach()
        torch.testing.assert_close(parameter, expected)
        assert parameter.grad is None
    after = _numbers(state.looked_at)
    statistics = [name for name in after if "running" in name]
    assert not any(torch.equal(after[name], before[name]) for name in statistics)
    state._guard.scale.fill_(2.0**120)
    state.update(*views(2), 2, _places())
    assert recalling[0].steps == 1
    assert all(torch.equal(one, after[name]) for name, one in _numbers(state.looked_at).items())


def test_a_trial_of_the_network_leaves_the_copy_and_the_state_alone(
    recalling: list[Recalling], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = built()
    before = {**state.looked_at.state_dict(), **_numbers(state.looked_at)}

    def choose(wish: str, network: Any, try_out: Any, *_: Any) -> tuple[Any, CompileChoice]:
        try_out(network)
        return network, CompileChoice(False)

    monkeypatch.setattr(train_state, "choose", choose)
    state.choose_network(1, lambda: None)
    assert recalling[0].steps == 0
    assert all(torch.equal(one, before[name]) for name, one in state.looked_at.state_dict().items())


def test_an_objective_that_asks_for_nothing_is_kept_nothing_for(tmp_path: Path) -> None:
    assert pretrain(runs.spec(epochs=1), runs.context(tmp_path)).outcome == "ok"
    assert not runs.checkpoint(tmp_path, 1, EPOCH).keys() & {"momentum_network", "objective", "image_pass"}


def test_what_takes_whole_batches_refuses_pieces_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VicregSpec, "whole_batches", "it remembers")
    asked = {"kind": "pretrain", "data": "digits", "objective": {"name": "vicreg"}, "batch_size": 8}
    parse_spec(asked)
    with pytest.raises(SpecError) as caught:
        parse_spec({**asked, "micro_batch": 4})
    (fault,) = caught.value.faults
    assert fault.pointer == "/micro_batch"
    assert "objective vicreg takes whole batches: it remembers; leave micro_batch out" in fault.message


def _places() -> Any:
    return torch.arange(12).numpy()


def _numbers(network: torch.nn.Module) -> dict[str, Tensor]:
    names = (name for name in network.state_dict() if not name.endswith("num_batches_tracked"))
    return {name: network.state_dict()[name].clone() for name in names}


def test_the_state_goes_through_a_checkpoint(recalling: list[Recalling]) -> None:
    one, other = built(), built()
    for step in (1, 2):
        one.update(*views(step), step, _places())
    other.load_state_dict(one.state_dict())
    for state in (one, other):
        state.update(*views(3), 3, _places())
    assert runs.same(other.state_dict(), one.state_dict())
