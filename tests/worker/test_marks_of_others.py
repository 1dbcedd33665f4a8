"""Marks of attempts count on processes of this account alone: everybody may copy them onto their own."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid

import psutil
import pytest
from rights import NOBODY, REPOSITORY, WITHOUT_KILL, foreign_process, needs_root, run_script, without_rights

from service import marks
from service.marks import ATTEMPT, Mark
from worker.process import NODE_BITS, PID_BITS, devices_in_use, end_orphans, is_gone

NODE = f"test-{os.getpid()}"
HELD = {"GPU-a": None, "GPU-b": None}


@pytest.fixture
def attempt() -> uuid.UUID:
    return uuid.uuid4()


def _of_a_dead_worker(prefix: list[str], attempt: uuid.UUID, node: str = NODE) -> Mark:
    """What one that was started with `prefix` gave its ranks."""
    code = f"import uuid; from worker.process import mark_for; print(mark_for(uuid.UUID({str(attempt)!r}), {node!r}))"
    asked = subprocess.run(
        [*prefix, sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return eval(asked.stdout, {"Mark": Mark})


def _former(attempt: uuid.UUID) -> Mark:
    """The same, of a worker of the version before: the node's name alone. Its process id is none that Linux gives."""
    return Mark(marks.name_of(str(attempt)), (marks.hash_bits(NODE, NODE_BITS) << PID_BITS) + (1 << PID_BITS) - 1)


ITS_OWN_ALONE = """
import os, uuid
from pathlib import Path
from worker.process import Ranks, devices_in_use, end_marked, end_orphans, is_gone, mark_for, marked
attempt = uuid.UUID({attempt!r})
assert is_gone(attempt)
assert devices_in_use({node!r}, {held!r}) == set()
ranks = Ranks(["sleep", "60"], [dict(os.environ)], Path(os.devnull), mark_for(attempt, {node!r}))
assert marked(attempt) == ranks.pids
assert devices_in_use({node!r}, {held!r}) == set({held!r})
assert not is_gone(attempt)
assert end_marked(attempt)
assert devices_in_use({node!r}, {held!r}) == set()
assert end_orphans({node!r}) == []
"""


@needs_root
@pytest.mark.parametrize("written", ["now", "before"])
def test_a_mark_that_another_account_copies_holds_no_slot(attempt: uuid.UUID, written: str) -> None:
    copied = _of_a_dead_worker(without_rights(), attempt) if written == "now" else _former(attempt)
    with foreign_process(ATTEMPT, copied) as forger:
        run_script(without_rights(), ITS_OWN_ALONE.format(attempt=str(attempt), node=NODE, held=HELD))
        assert forger.poll() is None


@needs_root
@pytest.mark.parametrize("written", ["now", "before"])
def test_ranks_of_another_account_on_a_node_of_the_same_name_are_not_roots(attempt: uuid.UUID, written: str) -> None:
    theirs = _of_a_dead_worker(without_rights(), attempt) if written == "now" else _former(attempt)
    with foreign_process(ATTEMPT, theirs, account=NOBODY) as rank:
        assert devices_in_use(NODE, HELD) == set()
        assert end_orphans(NODE) == []
        assert rank.poll() is None


def test_ranks_that_a_worker_of_the_version_before_left_are_found_and_ended(attempt: uuid.UUID) -> None:
    with subprocess.Popen(["sleep", "60"]) as left:
        marks.mark(left.pid, ATTEMPT, _former(attempt))
        assert not is_gone(attempt)
        assert devices_in_use(NODE, HELD) == set(HELD)
        assert end_orphans(NODE) == [left.pid]
        left.wait()
    assert is_gone(attempt)


UNENDED = """
import logging, uuid
from worker import process
logging.basicConfig(format="%(message)s")
process.END_SECONDS = 0.1
assert not process.end_marked(uuid.UUID({attempt!r}))
"""


@needs_root
def test_what_does_not_end_is_named_in_the_log(attempt: uuid.UUID) -> None:
    with foreign_process(ATTEMPT, _of_a_dead_worker([], attempt)) as there:
        said = run_script(WITHOUT_KILL, UNENDED.format(attempt=str(attempt)))
        assert f"processes of an attempt do not end: [{there.pid}]" in said
        assert psutil.pid_exists(there.pid)
