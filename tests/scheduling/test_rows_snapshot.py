"""What one look of the scheduler sees is of one moment, whoever writes meanwhile."""

from __future__ import annotations

from typing import Any

from lab import Lab
from sqlalchemy import event


def test_a_node_that_registers_while_the_scheduler_looks_is_seen_whole_or_not(lab: Lab) -> None:
    lab.node("gpu-1")
    job_id = lab.submit()
    other = Lab(lab.settings)
    pending = ["gpu-2"]

    def register(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if pending and "FROM slots" in statement:
            other.node(pending.pop())

    event.listen(lab.engine, "before_cursor_execute", register)
    try:
        lab.place()
    finally:
        event.remove(lab.engine, "before_cursor_execute", register)
        other.engine.dispose()
    assert not pending
    assert lab.attempt(job_id).node == "gpu-1"
    large = lab.submit(slots=2)
    lab.place()
    assert lab.attempt(large).node == "gpu-2"
