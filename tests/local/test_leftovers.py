"""What a killed `barlow up` left is ended, and what another account has marked as if it were does no harm."""

from __future__ import annotations

from pathlib import Path

import psutil
from rights import NOBODY, WITHOUT_KILL, foreign_process, needs_root, run_script, without_rights

from service import marks
from service.local.process import end_leftovers

LEFT_ALONE = """
import subprocess
from pathlib import Path
from service.local.process import belong_to, belonging_to, end_leftovers
stack, said = Path({stack!r}), []
belong_to(stack)
left = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
pids = [process.pid for process in belonging_to(stack)]
assert {forger} not in pids and left.pid in pids, pids
assert end_leftovers(stack, said.append, grace_seconds=20) == 1
left.wait(20)
assert end_leftovers(stack, said.append, grace_seconds=20) == 0
assert said == []
"""

REFUSED = """
from pathlib import Path
from service.local import process
process.END_SECONDS = 0.1
stack, said = Path({stack!r}), []
assert process.end_leftovers(stack, said.append, grace_seconds=0.1) == 1
assert said == [f"processes of {{stack}} do not end and may hold its files and ports: {forger}"], said
"""


def _stack_mark(stack: Path) -> marks.Mark:
    return marks.Mark(marks.name_of(str(stack.resolve())))


@needs_root
def test_a_mark_on_another_account_s_process_keeps_no_stack_from_start_or_end(tmp_path: Path) -> None:
    with foreign_process(marks.STACK, _stack_mark(tmp_path)) as forger:
        run_script(without_rights(), LEFT_ALONE.format(stack=str(tmp_path), forger=forger.pid))
        assert forger.poll() is None


@needs_root
def test_what_cannot_be_ended_is_named_and_ends_nothing_else(tmp_path: Path) -> None:
    with foreign_process(marks.STACK, _stack_mark(tmp_path)) as forger:
        run_script(WITHOUT_KILL, REFUSED.format(stack=str(tmp_path), forger=forger.pid))
        assert forger.poll() is None


@needs_root
def test_root_ends_what_it_had_started_as_another_account(tmp_path: Path) -> None:
    """As its PostgreSQL."""
    said: list[str] = []
    with foreign_process(marks.STACK, _stack_mark(tmp_path), account=NOBODY) as left:
        psutil.Process(left.pid).suspend()
        assert end_leftovers(tmp_path, said.append, grace_seconds=0.1) == 1
        left.wait(20)
    assert said == []
