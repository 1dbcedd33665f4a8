"""Wake-ups over a real Redis: what is sent, and what happens when nobody is there."""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid
from pathlib import Path

import pytest
import redis as redis_client
from kombu.exceptions import OperationalError
from rights import OTHER, needs_root, thief

from service.api.readiness import Parts
from service.broker import make_celery, queue_of, send_wake
from service.local.servers import Redis
from service.scheduling import waker
from service.scheduling.waker import Waker
from service.settings import Settings


def test_a_wake_up_is_one_json_message_in_the_nodes_own_queue(redis: Redis) -> None:
    app = make_celery(Settings(database_url="postgresql://unused", redis_url=redis.url))
    node, attempt_id = f"gpu-{uuid.uuid4().hex[:8]}", uuid.uuid4()
    send_wake(app, node, attempt_id)
    with redis_client.Redis.from_url(redis.url) as client:
        (raw,) = client.lrange(queue_of(node), 0, -1)
        # Nothing else is left in Redis: no result, no subscription to one.
        assert not [key for key in client.scan_iter() if key.startswith(b"celery-task-meta")]
    message = json.loads(raw)
    assert message["content-type"] == "application/json"
    assert message["headers"]["task"] == "barlow.wake"
    assert message["headers"]["id"] == str(attempt_id)
    with app.connection_for_read() as connection:
        received = connection.SimpleQueue(queue_of(node)).get(timeout=10)
        assert received.payload[1] == {"attempt_id": str(attempt_id)}
        received.ack()


@needs_root
def test_another_account_that_has_taken_its_port_is_sent_no_password() -> None:
    with thief() as other:
        settings = Settings(
            database_url="postgresql://unused",
            redis_url=f"redis://:secret@127.0.0.1:{other.port}/0",
            same_account=True,
        )
        app = make_celery(settings)
        words = f"port {other.port} of 127.0.0.1 is taken by another account \\(user id {OTHER}\\)"
        with pytest.raises(OperationalError, match=words):
            send_wake(app, "gpu-1", uuid.uuid4())
        with app.connection_for_read() as reading, pytest.raises(OperationalError, match=words):
            reading.SimpleQueue(queue_of("gpu-1")).get(timeout=10)
        assert not Parts(settings)._ask_broker()["broker"].ok
        assert other.heard() == set()


def _first_words(server: socket.socket, heard: list[bytes]) -> None:
    connection = server.accept()[0]
    with connection:
        heard.append(connection.recv(10_000))


def test_whether_redis_is_there_is_asked_over_tls_where_the_address_says_so() -> None:
    """By readiness and by the queue alike: nothing is sent in clear."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"rediss://:secret@127.0.0.1:{server.getsockname()[1]}/0?ssl_cert_reqs=required"
        listening = threading.Thread(target=_first_words, args=(server, heard), daemon=True)
        listening.start()
        assert not Parts(Settings(database_url="postgresql://unused", redis_url=url))._ask_broker()["broker"].ok
        listening.join(20)
    (hello,) = heard
    assert hello[0] == 0x16, "the beginning of TLS"
    assert b"secret" not in hello


def test_and_by_a_socket_of_a_folder(tmp_path: Path) -> None:
    settings = Settings(database_url="postgresql://unused", redis_url=f"unix://{tmp_path}/redis.sock")
    assert "not reachable: ConnectionError" in str(Parts(settings)._ask_broker()["broker"].detail)


@pytest.mark.parametrize("url", ["redis+socket:///run/redis.sock", "sentinel://:secret@127.0.0.1:1"])
def test_what_the_queue_alone_can_read_is_not_called_away(url: str) -> None:
    check = Parts(Settings(database_url="postgresql://unused", redis_url=url))._ask_broker()["broker"]
    assert check.ok
    assert check.detail.startswith("not asked: ")


def test_without_redis_sending_fails_soon() -> None:
    app = make_celery(Settings(database_url="postgresql://unused", redis_url="redis://127.0.0.1:1/0"))
    started = time.monotonic()
    with pytest.raises(OperationalError):
        send_wake(app, "gpu-1", uuid.uuid4())
    assert time.monotonic() - started < 30


class Recorder:
    def __init__(self, failures: int = 0) -> None:
        self.sent: list[tuple[str, uuid.UUID]] = []
        self.failures = failures
        self.changed = threading.Condition()

    def __call__(self, node: str, attempt_id: uuid.UUID) -> None:
        with self.changed:
            self.sent.append((node, attempt_id))
            self.changed.notify_all()
        if len(self.sent) <= self.failures:
            raise OperationalError("away")

    def wait_for(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.sent) >= count, timeout=20)


def test_an_attempt_is_announced_once_and_again_only_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waker, "RESEND_SECONDS", 3600.0)
    send = Recorder()
    waiting, other = ("gpu-1", uuid.uuid4()), ("gpu-2", uuid.uuid4())
    subject = Waker(send)
    subject.offer([waiting])
    send.wait_for(1)
    subject.offer([waiting, other])
    send.wait_for(2)
    assert send.sent == [waiting, other]
    monkeypatch.setattr(waker, "RESEND_SECONDS", 0.0)
    subject.offer([waiting])
    send.wait_for(3)
    assert send.sent[2] == waiting


def test_failures_are_logged_once_and_do_not_end_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(waker, "RESEND_SECONDS", 0.0)
    send = Recorder(failures=3)
    subject = Waker(send)
    with caplog.at_level("INFO", logger="service.scheduling"):
        for count in range(1, 6):
            subject.offer([("gpu-1", uuid.uuid4())])
            send.wait_for(count)
    texts = [record.message for record in caplog.records]
    assert sum("nodes find their jobs by polling" in line for line in texts) == 1
    assert sum("get through again" in line for line in texts) == 1
