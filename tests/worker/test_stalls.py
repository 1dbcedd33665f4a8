"""The clock of progress: lines of the journal, not signs of life."""

import time
from pathlib import Path

import pytest

from worker import stalls
from worker.stalls import StallDetector


def _stalls(watched: StallDetector, within: float, every: float = 0.02) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if watched.stalled():
            return True
        time.sleep(every)
    return False


def test_a_journal_that_does_not_grow_is_a_stall_and_each_line_begins_the_wait_anew(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    journal.write_text("{}\n")
    watched = StallDetector(journal, 1.0)
    for _ in range(4):
        assert not _stalls(watched, within=0.4)
        with journal.open("a") as file:
            file.write("{}\n")
    assert _stalls(watched, within=20)


def test_the_start_takes_what_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = tmp_path / "journal.jsonl"
    watched = StallDetector(journal, 0.1)
    assert watched.patience == stalls.START_SECONDS
    assert StallDetector(journal, 600).patience == 600
    monkeypatch.setattr(stalls, "START_SECONDS", 1.0)
    assert not _stalls(watched, within=0.5)
    assert _stalls(watched, within=20), "but it has an end"
    journal.write_text("{}\n")
    assert not watched.stalled()
    assert watched.patience == 0.1


def test_the_time_in_which_the_worker_itself_was_frozen_is_nobodys_stall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalls, "LONGEST_LOOK_SECONDS", 0.1)
    journal = tmp_path / "journal.jsonl"
    journal.write_text("{}\n")
    watched = StallDetector(journal, 0.5)
    assert not watched.stalled()
    time.sleep(1.0)
    assert not watched.stalled()
    assert _stalls(watched, within=20)
