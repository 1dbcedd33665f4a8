"""`python -m worker` as a process: woken by Redis or by its own poll, drained by TERM, without torch."""

import json
import lzma
import os
import signal
import subprocess
import sys
import time
import uuid
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis as redis_client
from sqlalchemy import text
from worker_host import small_pretraining
from worker_process import NODE, Worker

from service.broker import WAKE_TASK, make_celery, queue_of, send_wake
from service.database.engine import make_engine
from service.database.migrate import current_and_head
from service.database.tables import NOBODY, Node
from service.ledger import attempts
from service.ledger.moves import lock_job
from service.local.servers import Redis
from service.settings import Settings


@pytest.fixture
def worker(request: pytest.FixtureRequest, database: Settings, tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(database, tmp_path, **getattr(request, "param", {}))
    yield worker
    worker.end()


def test_a_message_starts_a_job_at_once_and_term_drains_it(redis: Redis, database: Settings, tmp_path: Path) -> None:
    settings = database.model_copy(update={"redis_url": type(database.redis_url)(redis.url)})
    worker = Worker(settings, tmp_path, poll_seconds=3600.0, lease_seconds=7200.0)
    host, process = worker.host, worker.processes[0]
    try:
        worker.registered()
        worker.until(lambda: "celery@" in worker.log.read_text() or "Connected to redis" in worker.log.read_text())
        job_id = host.post(small_pretraining(epochs=5000))
        host.place()
        send_wake(make_celery(settings), NODE, host.attempt(job_id).id)
        worker.until(lambda: host.job(job_id).state == "running")  # by the message: the poll is an hour away
        worker.until(lambda: len(host.points(job_id)) > 0)
        if os.geteuid() == 0:  # it hides its memory from others of its account
            assert "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text()
        ranks = psutil.Process(process.pid).children()
        assert len(ranks) == 1
        assert worker.drain(process) == 0
        assert not ranks[0].is_running()
        assert host.job(job_id).state == "queued"
        assert host.attempts_of(job_id)[0].outcome == "drained"
        assert any((host.folder(job_id) / "checkpoints").iterdir()), "it goes on from here"
        again = worker.start()
        worker.until(lambda: worker.log.read_text().count("Connected to redis") == 2)

        def placed() -> bool:
            host.place()  # which passes over what a beginning worker is at
            return len(host.attempts_of(job_id)) == 2

        worker.until(placed)
        send_wake(make_celery(settings), NODE, host.attempt(job_id).id)
        worker.until(lambda: "attempt_resumed" in host.kinds(job_id))
        assert worker.drain(again) == 0
    finally:
        host.check()
        worker.end()


def test_nobody_ends_a_worker_by_the_broker_and_its_terminal_s_end_drains_it(
    redis: Redis, database: Settings, tmp_path: Path
) -> None:
    settings = database.model_copy(update={"redis_url": type(database.redis_url)(redis.url)})
    worker = Worker(settings, tmp_path, poll_seconds=3600.0, lease_seconds=7200.0)
    host, app = worker.host, make_celery(settings)
    try:
        worker.registered()

        def woken() -> None:
            job_id = host.post(small_pretraining(epochs=5000))
            host.place()
            send_wake(app, NODE, host.attempt(job_id).id)
            worker.until(lambda: host.job(job_id).state == "running")

        woken()  # by now it listens to whatever it will listen to
        with redis_client.Redis.from_url(redis.url) as client:
            assert not client.exists("_kombu.binding.celery.pidbox")
            assert client.pubsub_numpat() == 0, "nobody listens to what is said to all workers"
        for order in ("ping", "pool_shrink", "shutdown"):
            app.control.broadcast(order)
        held = _most_memory(worker.processes[0].pid)
        with redis_client.Redis.from_url(redis.url) as client:
            # Grown it would be 400 MB. Celery met the one without a body again and again, and ended of the last three.
            client.lpush(queue_of(NODE), _message(lzma.compress(bytes(400 << 20)), compression="application/x-lzma"))
            client.lpush(queue_of(NODE), _message(b""), "{", "null")
            worker.until(lambda: client.llen(queue_of(NODE)) == 0)
            assert not client.exists("unacked", "unacked_index")
            said = worker.log.read_text()
            assert said.count("is no wake-up, and is thrown away") == 4
            assert not any(
                word in said for word in ("draining", "Traceback", "ended by itself", "Connection to broker lost")
            )
            client.set(queue_of(NODE), "of another type")  # Celery ends of it
            worker.until(lambda: client.type(queue_of(NODE)) == b"none")
        woken()
        assert _most_memory(worker.processes[0].pid) < held + (200 << 20)
        assert worker.log.read_text().count("ended by itself") == 1
        worker.processes[0].send_signal(signal.SIGHUP)
        worker.until(lambda: worker.processes[0].poll() is not None)
        assert worker.processes[0].returncode == 0
        assert "draining" in worker.log.read_text()
    finally:
        worker.end()


def _most_memory(pid: int) -> int:
    """Bytes that a process held at once at its largest."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def _message(body: bytes, **headers: Any) -> str:
    """A message as Celery writes them, with what somebody else would put into it."""
    name = str(uuid.uuid4())
    headers = {"lang": "py", "task": WAKE_TASK, "id": name, "root_id": name, "retries": 0} | headers
    delivery = {"exchange": "", "routing_key": queue_of(NODE)}
    properties = {"body_encoding": "base64", "delivery_tag": name, "delivery_info": delivery}
    kinds = {"content-type": "application/json", "content-encoding": "utf-8"}
    return json.dumps({"body": b64encode(body).decode(), "headers": headers, "properties": properties, **kinds})


@pytest.mark.faults
@pytest.mark.parametrize("worker", [{"poll_seconds": 0.5, "lease_seconds": 3.0}], indirect=True)
def test_without_redis_jobs_run_by_polling_and_a_second_of_the_name_is_refused(worker: Worker) -> None:
    host = worker.host
    worker.registered()
    second = worker.start()
    job_id = host.post(small_pretraining(epochs=1))
    host.place()
    worker.until(lambda: host.job(job_id).state == "succeeded")
    assert second.wait(60) == 2
    assert "another worker named 'process-1' was seen" in worker.log.read_text()
    assert worker.processes[0].poll() is None
    assert worker.drain(worker.processes[0]) == 0


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGHUP])
def test_a_term_as_soon_as_it_is_there_and_a_second_one_drain_a_worker(worker: Worker, asked: signal.Signals) -> None:
    process = worker.processes[0]
    deadline = time.monotonic() + 60
    while "node process-1: cpu" not in worker.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(asked)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert "draining" in worker.log.read_text()
    with worker.host.sessions() as session:
        assert session.get_one(Node, NODE).instance == NOBODY


def test_a_drain_does_not_wait_for_a_redis_that_does_not_answer(
    redis: Redis, database: Settings, tmp_path: Path
) -> None:
    settings = database.model_copy(update={"redis_url": type(database.redis_url)(redis.url)})
    worker = Worker(settings, tmp_path, poll_seconds=0.5)
    host = worker.host
    frozen = psutil.Process(redis.child.pid)
    try:
        worker.until(lambda: "Connected to redis" in worker.log.read_text())
        job_id = host.post(small_pretraining(epochs=5000))
        host.place()
        worker.until(lambda: len(host.points(job_id)) > 0)
        frozen.suspend()
        late = host.post(small_pretraining())
        worker.processes[0].send_signal(signal.SIGTERM)
        worker.until(lambda: host.attempt(job_id).state in ("stopping", "ended"))
        with host.sessions.begin() as session:  # as a scheduler that had looked before the drain
            assert session.get_one(Node, NODE).draining_at is not None
            free = [slot for slot in host.slots(NODE) if slot.attempt_id is None]
            assert attempts.place(session, lock_job(session, late), free[:1], lease_seconds=60) is None
        worker.until(lambda: host.job(job_id).state == "queued")
        assert host.attempts_of(job_id)[0].outcome == "drained"
        frozen.resume()
        assert worker.processes[0].wait(120) == 0
        said = worker.log.read_text()
        assert said.index("draining: ") < said.index("Celery has taken leave"), "it waited for Redis"
        assert host.attempts_of(late) == []
        host.check()
    finally:
        frozen.resume()
        worker.end()


def test_a_worker_without_a_name_says_what_to_set(database: Settings) -> None:
    env = {**os.environ, "BARLOW_DATABASE_URL": database.database_url.get_secret_value()}
    env.pop("BARLOW_NODE_NAME", None)
    done = subprocess.run([sys.executable, "-m", "worker"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "set BARLOW_NODE_NAME" in done.stderr


@pytest.mark.parametrize(
    ("revision", "remedy"), [("0001", "python -m service.database upgrade"), ("9999", "it is newer: bring this")]
)
def test_a_database_of_another_version_is_refused_with_the_reason(
    database: Settings, tmp_path: Path, revision: str, remedy: str
) -> None:
    engine = make_engine(database.as_owner())
    _, head = current_and_head(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
    engine.dispose()
    worker = Worker(database, tmp_path)
    try:
        assert worker.processes[0].wait(60) == 2
        said = worker.log.read_text()
        assert f"the run database is at schema {revision}, and this version works with {head}" in said
        assert remedy in said
    finally:
        worker.end()


def test_every_module_of_the_worker_comes_without_torch() -> None:
    script = (
        "import importlib, pkgutil, sys, worker\n"
        "for module in pkgutil.walk_packages(worker.__path__, 'worker.'):\n"
        "    if not module.name.endswith('__main__'): importlib.import_module(module.name)\n"
        "from worker.recorder.mlflow_run import make_client\n"
        "make_client('http://127.0.0.1:9')\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
