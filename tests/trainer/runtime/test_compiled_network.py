"""The network is one graph for torch.compile, with split batch normalisation; and which form of it a run takes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from train_states import built, views

from trainer.data.pixels import normalise
from trainer.runtime import compiling
from trainer.train_state import TrainState

CPU = torch.device("cpu")


def passed(state: TrainState, network: Callable[[Tensor], tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Outputs, gradients and running statistics of one pass; the features have no gradient of their own."""
    z, features = network(normalise(torch.cat(list(views(1))), torch.float64))
    z.backward(torch.linspace(-1, 1, z.numel(), dtype=z.dtype).view(z.shape))
    assert not features.requires_grad
    return [z.detach(), features, *(p.grad for p in state.model.parameters()), *state.model.buffers()]


def test_the_network_is_one_graph_and_computes_the_same():
    eager, compiled = built(precision="fp64"), built(precision="fp64")
    torch._dynamo.reset()
    network = torch.compile(compiled._written, fullgraph=True, dynamic=False, backend="aot_eager")
    for one, other in zip(passed(eager, eager._written), passed(compiled, network), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_a_cpu_runs_the_network_as_it_is_written_unless_told(monkeypatch: pytest.MonkeyPatch):
    for name, value in (("BACKEND", "aot_eager"), ("WARM_UP", 1), ("TIMED", 1)):
        monkeypatch.setattr(compiling, name, value)
    for wish, compiled in (("auto", False), ("off", False), ("on", True)):
        state, plain = (built(run={"compile": w}, views={"size": 16}, precision="fp64") for w in (wish, "off"))
        choice = state.choose_network(ranks=1, tick=lambda: None)
        assert choice is state.choice
        assert choice.compiled is compiled
        assert (state._network == state._written) is not compiled
        assert f"run.compile {wish}" in choice.said()
        assert (choice.compiled_seconds is not None) is compiled
        # The trial has left no trace.
        losses = [s.update(*views(1), 1).terms.loss.detach() for s in (state, plain)]
        torch.testing.assert_close(*losses, rtol=1e-12, atol=0)
        for one, other in zip(state.model.state_dict().values(), plain.model.state_dict().values(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_the_trial_takes_whole_steps_in_pieces_too(monkeypatch: pytest.MonkeyPatch):
    """So nothing is compiled that no step uses, and what does not fit is found before the first step."""
    for name, value in (("BACKEND", "aot_eager"), ("WARM_UP", 1), ("TIMED", 1)):
        monkeypatch.setattr(compiling, name, value)
    state = built(run={"compile": "on"}, views={"size": 16}, precision="fp64", micro_batch=6)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    state.choose_network(ranks=1, tick=lambda: None)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs > 0
    state.update(*views(1), 1)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


def _choice(
    monkeypatch: pytest.MonkeyPatch,
    *seconds_found: float | Exception,
    former: compiling.CompileChoice | None = None,
) -> compiling.CompileChoice:
    """What `auto` takes on a GPU where the forms take so many seconds, in the order in which they are tried; an
    infinite number does not fit."""
    found = iter(seconds_found)

    def seconds(*_: object) -> float:
        value = next(found)
        if isinstance(value, Exception):
            raise value
        return value

    monkeypatch.setattr(compiling, "_seconds", seconds)
    return compiling.choose("auto", lambda x: (x, x), lambda network: None, torch.device("cuda"), former)[1]


def test_the_trial_takes_what_is_faster_and_what_fits(monkeypatch: pytest.MonkeyPatch):
    inf = float("inf")
    assert not _choice(monkeypatch, 1.0, 1.1).compiled
    assert _choice(monkeypatch, 1.0, 0.9) == compiling.CompileChoice(True, 1.0, 0.9, 1.0, "run.compile auto")
    smaller = _choice(monkeypatch, inf, inf, 2.0)
    assert (smaller.compiled, smaller.eager_seconds, smaller.activation_budget) == (True, None, 0.75)
    broken = _choice(monkeypatch, 1.0, RuntimeError("no compiler"))
    assert not broken.compiled
    assert "no compiler" in broken.why
    with pytest.raises(torch.OutOfMemoryError, match="micro_batch"):
        _choice(monkeypatch, inf, inf, inf)
    torch._functorch.config.activation_memory_budget = 1.0


def test_a_resumed_run_keeps_the_form_it_had_where_that_runs(monkeypatch: pytest.MonkeyPatch):
    inf = float("inf")
    written, compiled = compiling.CompileChoice(False), compiling.CompileChoice(True, activation_budget=0.75)
    kept = _choice(monkeypatch, 2.0, former=compiled)
    assert (kept.compiled, kept.activation_budget, kept.eager_seconds) == (True, 0.75, None), "its budget first"
    assert "as in the run that is resumed" in kept.said()
    assert _choice(monkeypatch, inf, 2.0, former=compiled).activation_budget == 1.0
    assert not _choice(monkeypatch, RuntimeError("no compiler"), 1.0, former=compiled).compiled
    slower = _choice(monkeypatch, 2.0, former=written)
    assert (slower.compiled, slower.compiled_seconds) == (False, None), "nothing is compiled to compare"
    assert _choice(monkeypatch, inf, 2.0, former=written).compiled, "as it was written it does not fit here"
    torch._functorch.config.activation_memory_budget = 1.0
