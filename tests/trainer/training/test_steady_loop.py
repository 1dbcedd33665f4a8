"""Between two recordings the loop reads nothing back from the device: on a GPU the host would wait for it there."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import runs
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from train_states import built, views

from barlow_lab.specs import PretrainSpec, ViewsSpec
from trainer.data.loading.training import TrainingBatches
from trainer.data.registry import open_data_set
from trainer.data.views.photometry import finish
from trainer.objectives.base import ImageEmbeddings, Pauses
from trainer.optim.schedules import Schedule
from trainer.pretraining import running
from trainer.train_state import TrainState, Update

READING_METHODS = ("item", "tolist", "cpu", "nonzero", "__bool__", "__int__", "__float__", "__index__")
"""Of a GPU's tensor; `numpy` does not wait for one but refuses it, and what is loaded lies in the host's memory."""
READING_OPERATIONS = {
    torch.ops.aten.equal.default,
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten.item.default,
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.unique_consecutive.default,
}


class _Read(Exception):
    pass


class _NoReading(TorchDispatchMode):
    """Refuses operations whose result, or its shape, has to come to the host; what autograd and optimisers do too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        indices = args[1] if func is torch.ops.aten.index.Tensor else ()
        if func in READING_OPERATIONS or any(i is not None and i.dtype == torch.bool for i in indices):
            raise _Read(str(func))
        return func(*args, **(kwargs or {}))


class _Watch:
    """While `armed`, reading a tensor in this thread is an error; the threads that load are free to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.armed = False
        self._thread = threading.get_ident()
        for name in READING_METHODS:
            monkeypatch.setattr(Tensor, name, self._refusing(name, getattr(Tensor, name)))

    def _refusing(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def refusing(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            if self.armed and threading.get_ident() == self._thread:
                raise _Read(f"Tensor.{name}")
            return method(tensor, *args, **kwargs)

        return refusing

    @contextmanager
    def over(self) -> Iterator[None]:
        self.armed = True
        try:
            with _NoReading():
                yield
        finally:
            self.armed = False


PCL = {"name": "pcl", "queue": 24, "clusters": [3, 5], "negatives": 2, "warmup_epochs": 0}
PLACES = np.arange(12)

STEPS = [
    {"optimizer": {"name": "lars"}},
    {"optimizer": {"name": "sgd"}},
    {"optimizer": {"name": "adamw"}, "precision": "bf16"},
    {"precision": "fp16", "micro_batch": 6},
    {"objective": {"form": "direct"}},
    {"objective": {"name": "vicreg"}},
    {"objective": {"name": "nt_xent"}, "precision": "bf16"},
    {"objective": {"name": "infonce"}},
    {"objective": {"name": "w_mse", "sub_batch": 6}, "projector": {"widths": [24, 4]}},
    {"objective": {"name": "view_distance", "variance": 2.0}},
    {"objective": {"name": "information_bottleneck", "shrinkage": "oas"}},
    {"objective": {"name": "simsiam"}},
    {"objective": {"loss": "cross_entropy", "temperature": 0.1, "predictor_width": 8, "normalisation": "feature"}},
    {"objective": PCL},
    {"objective": PCL, "precision": "fp16"},
    {"objective": {"form": "dual"}, "projector": {"widths": [24, 32]}},
]


@pytest.mark.parametrize("changes", STEPS, ids=str)
def test_a_step_reads_nothing(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    state = built(**changes)
    _before_epoch(state)
    watch = _Watch(monkeypatch)
    with watch.over():
        updates = [state.update(*views(step), step, PLACES) for step in (1, 2)]
    assert int(updates[-1].first_bad_step) == 0


def _before_epoch(state: TrainState) -> None:
    embeddings = torch.randn(12, 16, generator=torch.Generator().manual_seed(0)).to(state._device)
    images = ImageEmbeddings(embeddings, torch.arange(12, device=state._device), 12)
    if state.objective.wants_images(0):
        state.objective.before_epoch(0, images, Pauses(lambda: None, lambda: None))


def test_the_loop_reads_nothing_between_recordings(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """From the update of each step in 5 on: what comes after it belongs to recording, and the four before it do not."""
    watch, seen = _Watch(monkeypatch), []

    class Watched(TrainState):
        def update(self, view_a: Tensor, view_b: Tensor, step: int, indices: np.ndarray | None = None) -> Update:
            watch.armed = step >= 2 and step % 5 != 0
            seen.append(step)
            with _NoReading():
                return super().update(view_a, view_b, step, indices)

    monkeypatch.setattr(running, "TrainState", Watched)
    context = runs.context(tmp_path)
    monkeypatch.setattr(context.stop, "requested", lambda step: False)  # the ranks agree once a second, by design
    record = {"metrics_every_steps": 5, "correlation_every_epochs": 2}
    run = {"record": record, "checkpoint": {"every_epochs": 2}}
    assert running.pretrain(runs.spec(epochs=2, run=run), context).outcome == "ok"
    assert seen == list(range(1, 11))


def test_the_watch_sees_a_read(monkeypatch: pytest.MonkeyPatch):
    watch = _Watch(monkeypatch)
    tensor = torch.ones(3)
    for read in (
        lambda: tensor.sum().item(),
        lambda: bool(tensor.sum() > 0),
        lambda: tensor.tolist(),
        lambda: tensor[tensor > 0],
        lambda: torch.equal(tensor, tensor),
        lambda: tensor.cpu(),
    ):
        with watch.over(), pytest.raises(_Read):
            read()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("changes", STEPS, ids=str)
def test_on_a_gpu_no_step_waits_for_it(changes: dict[str, Any]):
    settings = {"data": "digits", "backbone": {"name": "tiny"}, "projector": {"widths": [24, 16]}, "batch_size": 12}
    device = torch.device("cuda")
    state = TrainState(PretrainSpec.model_validate({**settings, **changes}), Schedule(0, 100, 1.0), device)
    loader = TrainingBatches(
        open_data_set("digits", "train"), ViewsSpec.model_validate({"size": 16, "engine": "batched"}),
        batch_size=12, seed=0, rank=0, world_size=1, threads=1, pinned=True,
    )  # fmt: skip
    batches = list(loader.iterate(0, 5))
    _before_epoch(state)
    state.update(*finish(batches[0], device), 1, PLACES)  # allocations and libraries are set up in the first step
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        updates = [state.update(*finish(batch, device), batch.step, PLACES) for batch in batches[1:]]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert int(updates[-1].first_bad_step) == 0
