"""The one loop with a fit that only counts: the order of a step, what a stop leaves, and that nobody else has one."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import runs

from trainer.runtime.context import Context
from trainer.runtime.units import Steps, Stopped
from trainer.training.loop import Fit, train
from trainer.training.step_plan import StepPlan

ROOT = Path(__file__).resolve().parents[3]
STEPS = 7


@dataclass
class Nothing:
    """A batch of which one image cannot be read."""

    skipped: dict[str, str] = field(default_factory=lambda: {"a.png": "it is empty"})


class Counting(Fit[Nothing, int]):
    """Its state is a number; after every second step it looks at it, which a stop can cut short."""

    images_per_step = 4
    fingerprint = "nothing"

    def __init__(self, context: Context, stopped_at: int = -1, *, in_look: bool = False) -> None:
        run = {"checkpoint": {"every_steps": 3}, "record": {"metrics_every_steps": 2}}
        spec = runs.spec(run=run)
        super().__init__(spec, StepPlan(STEPS, 5, spec), context, Steps(context))
        self.value = 1.0
        self.looked = 0
        self.calls: list[str] = []
        self._stop_in_look = stopped_at if in_look else -1
        context.stop.requested = lambda step: not in_look and step == stopped_at  # type: ignore[method-assign]

    @property
    def newest(self) -> Mapping[str, float]:
        return {"loss": self.value}

    @property
    def caught_up(self) -> int:
        return self.looked

    def batches(self, done: int, steps: int) -> Generator[Nothing]:
        for _ in range(done, steps):
            yield Nothing()

    def update(self, batch: Nothing, step: int) -> int:
        self.value = 3 * self.value + step
        self.calls.append(f"update {step}")
        return step

    def record(self, step: int, left: int) -> None:
        assert left == step
        self.calls.append(f"record {step}")

    def settle(self, step: int) -> None:
        self.calls.append(f"settle {step}")

    def between_steps(self, step: int, left: int) -> None:
        self.catch_up(step)

    def catch_up(self, step: int) -> None:
        if step and step % 2 == 0 and self.looked < step:
            if step == self._stop_in_look:
                raise Stopped
            self.looked = step
            self.calls.append(f"look {step}")

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "looked": self.looked}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.value, self.looked = saved["value"], saved["looked"]


def test_a_step_is_updated_recorded_looked_at_and_then_saved(tmp_path: Path) -> None:
    fit = Counting(runs.context(tmp_path))
    assert train(fit)
    assert fit.calls == [
        "update 1", "update 2", "record 2", "look 2", "update 3", "settle 3", "update 4", "record 4", "look 4",
        "update 5", "settle 5", "update 6", "record 6", "look 6", "settle 6", "update 7", "record 7", "settle 7",
    ]  # fmt: skip
    assert [event.step for event in runs.events(tmp_path, kind="checkpoint")] == [3, 5, 6, 7]
    assert runs.checkpoint(tmp_path, 1, 7).keys() == {"value", "looked", "data", "metrics"}
    (warning,) = runs.events(tmp_path, kind="warning")
    assert (warning.step, "a.png cannot be read" in warning.data["message"]) == (1, True)


@pytest.mark.parametrize("in_look", [False, True], ids=["between two steps", "in a look"])
@pytest.mark.parametrize("stopped_at", range(STEPS))
def test_a_stop_at_any_step_goes_on_to_the_same_state(tmp_path: Path, stopped_at: int, in_look: bool) -> None:
    whole = Counting(runs.context(tmp_path / "whole"))
    assert train(whole)
    first = Counting(runs.context(tmp_path / "run"), stopped_at, in_look=in_look)
    if in_look and (stopped_at % 2 or not stopped_at):
        assert train(first), "there is no look to stop in"
        return
    assert not train(first)
    assert first.context.step == stopped_at
    assert [e.step for e in runs.events(tmp_path / "run", kind="checkpoint")][-1:] == (
        [stopped_at] if stopped_at else []
    )
    second = Counting(runs.context(tmp_path / "run", 2))
    assert train(second)
    assert runs.resume_step(tmp_path / "run", 2) == stopped_at
    assert (second.value, second.looked) == (whole.value, whole.looked)
    looks = [call for fit in (first, second) for call in fit.calls if "look" in call]
    assert looks == ["look 2", "look 4", "look 6"]


def test_what_was_made_up_for_before_a_second_stop_is_saved(tmp_path: Path) -> None:
    assert not train(Counting(runs.context(tmp_path), 4, in_look=True))
    second = Counting(runs.context(tmp_path, 2), 4)
    assert not train(second)
    assert second.calls == ["look 4", "settle 4"]
    third = Counting(runs.context(tmp_path, 3))
    assert train(third)
    assert "look 4" not in third.calls


def test_there_is_no_other_loop() -> None:
    parts = ("CheckpointWriter(", "begin_checkpoint(", "take_over(", "Pace(")
    having = {
        str(path.relative_to(ROOT / "trainer"))
        for path in (ROOT / "trainer").rglob("*.py")
        if any(part in line and "def " not in line for line in path.read_text().splitlines() for part in parts)
    }
    assert having == {"training/loop.py"}
