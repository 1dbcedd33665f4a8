"""The journal: whole events or none, at whatever byte the writer stopped."""

from __future__ import annotations

import json
import resource
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barlow_lab.journal import Journal, JournalEvent, read_events

_DATA = st.dictionaries(
    st.sampled_from(["done", "total", "phase", "message", "values"]),
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=12)
    | st.lists(st.integers(), max_size=3),
    max_size=3,
)
_EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["progress", "warning", "result"]),
        st.none() | st.integers(0, 10**9),
        st.none() | st.integers(0, 1000),
        _DATA,
    ),
    max_size=6,
)


def write(path: Path, events: list[Any]) -> None:
    path.unlink(missing_ok=True)
    journal = Journal(path)
    for kind, step, epoch, data in events:
        journal.append(kind, step=step, epoch=epoch, **data)
    journal.sync()
    journal.close()


@settings(max_examples=25, deadline=None)
@given(_EVENTS)
def test_round_trip_under_truncation_at_every_byte(tmp_path_factory: pytest.TempPathFactory, events: list[Any]) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    write(path, events)
    raw = path.read_bytes()
    whole = list(read_events(path))
    assert [(e.kind, e.step, e.epoch, e.data) for e in whole] == events
    assert [e.seq for e in whole] == list(range(1, len(events) + 1))
    assert [e.at for e in whole] == sorted(e.at for e in whole)
    assert [e.offset for e in whole] == [i + 1 for i, byte in enumerate(raw) if byte == 10]
    for size in range(len(raw), -1, -1):
        with path.open("r+b") as file:
            file.truncate(size)
        assert list(read_events(path)) == [e for e in whole if e.offset <= size]


@settings(max_examples=25, deadline=None)
@given(_EVENTS, st.integers(1, 4))
def test_reading_in_pieces_by_offset_is_reading_at_once(
    tmp_path_factory: pytest.TempPathFactory, events: list[Any], limit: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    write(path, events)
    pieces: list[JournalEvent] = []
    while piece := list(read_events(path, offset=pieces[-1].offset if pieces else 0, limit=limit)):
        assert len(piece) <= limit
        pieces += piece
    assert pieces == list(read_events(path))


def test_a_reader_sees_each_event_as_soon_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    assert list(read_events(path)) == []
    journal = Journal(path)
    offset = 0
    for step in range(3):
        journal.append("progress", step=step)
        (event,) = read_events(path, offset)
        assert event.step == step
        offset = event.offset
    assert list(read_events(path, offset)) == []
    journal.close()


def test_non_finite_metrics_are_named_not_written(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.metrics(3, 1, {"loss": float("nan"), "grad_norm": float("inf"), "learning_rate": 0.1})
    journal.metrics(4, 1, {"loss": 2.0})
    first, second = read_events(path)
    assert (first.kind, first.step, first.epoch) == ("metrics", 3, 1)
    assert first.data == {"values": {"learning_rate": 0.1}, "non_finite": ["grad_norm", "loss"]}
    assert second.data == {"values": {"loss": 2.0}}
    journal.close()


def test_a_refused_event_leaves_no_gap(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.append("progress")
    with pytest.raises(ValueError, match="JSON compliant"):
        journal.append("result", value=float("nan"))
    journal.append("progress")
    assert [e.seq for e in read_events(path)] == [1, 2]
    journal.close()


@contextmanager
def _file_size_limit(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_line_that_the_disk_took_by_half_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.append("progress", phase="one")
    size = path.stat().st_size
    with _file_size_limit(size + 40), pytest.raises(OSError, match="File too large"):
        journal.append("warning", message="x" * 200)
    assert path.stat().st_size == size
    journal.append("progress", phase="two")
    assert [(e.seq, e.data) for e in read_events(path)] == [(1, {"phase": "one"}), (2, {"phase": "two"})]
    journal.close()


def test_a_journal_is_never_appended_to_by_a_second_writer(tmp_path: Path) -> None:
    Journal(tmp_path / "journal.jsonl").close()
    with pytest.raises(FileExistsError):
        Journal(tmp_path / "journal.jsonl")


def test_two_threads_append_whole_lines_in_the_order_of_seq_and_time(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as both:
            list(both.map(lambda step: journal.append("progress", step=step, message="x" * (step % 50)), range(2000)))
    finally:
        sys.setswitchinterval(interval)
    events = list(read_events(path))
    assert [e.seq for e in events] == list(range(1, 2001))
    assert sorted(e.step or 0 for e in events) == list(range(2000))
    assert [e.at for e in events] == sorted(e.at for e in events)
    journal.append("finished")
    assert path.read_bytes().endswith(b"}\n")
    journal.close()


@pytest.mark.parametrize("line", [b"[1]", b"3", b'"seq"', b"{}", b'{"seq":1}', b"\xff", b"", b"{"])
def test_a_line_that_is_no_event_is_named_by_its_byte(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    good = json.dumps({"seq": 1, "at": 0.5, "kind": "progress", "step": None, "epoch": None}).encode() + b"\n"
    path.write_bytes(good + line + b"\n")
    events = read_events(path)
    assert next(events).seq == 1
    with pytest.raises(ValueError, match=f"byte {len(good)} does not begin"):
        next(events)
