"""The description of a run, which a person may write anew."""

from __future__ import annotations

from worker.recorder.mlflow_run import MlflowRun
from worker.recorder.position import Position


def describe(run: MlflowRun, position: Position, text: str) -> None:
    """Set the description, unless a person wrote another; `sending` in the position: those of which it is not known
    that they are there."""
    former, sending = position.value.get("note"), position.value.get("sending", [])
    if text == former and not sending:
        return
    if text not in sending:
        sending = [*sending, text]
        position.keep(sending=sending)
    run.note(text, [former, *sending])
    position.keep(note=text, sending=[])
