"""What is taken of a message from Redis, by whoever wrote it."""

import json
import uuid
from base64 import b64decode, b64encode
from typing import Any

import pytest
import redis as redis_client

from service.broker import make_celery, queue_of, send_wake
from service.local.servers import Redis
from service.settings import Settings
from worker.messages import written_anew

QUEUE = "node.gpu-1"
ATTEMPT_ID = uuid.UUID(int=7)  # the same in every test process, which knows a test by its values
BODY = [[], {"attempt_id": str(ATTEMPT_ID)}, {}]


def _message(body: Any = BODY, **changed: Any) -> dict[str, Any]:
    encoded = b64encode(body if isinstance(body, bytes) else json.dumps(body).encode()).decode()
    kinds = {"content-type": "application/json", "content-encoding": "utf-8"}
    headers = {"lang": "py", "task": "barlow.wake", "id": "1"}
    return {"body": encoded, "headers": headers, "properties": {"body_encoding": "base64"}} | kinds | changed


def test_a_wake_up_of_the_scheduler_is_one(redis: Redis) -> None:
    node = f"gpu-{uuid.uuid4().hex[:8]}"
    app = make_celery(Settings(database_url="postgresql://unused", redis_url=redis.url))
    send_wake(app, node, ATTEMPT_ID)
    with redis_client.Redis.from_url(redis.url) as client:
        sent = client.lpop(queue_of(node))
    assert isinstance(sent, bytes)
    message = json.loads(written_anew(sent, queue_of(node)))
    assert json.loads(b64decode(message["body"]))[:2] == BODY[:2]
    assert message["headers"]["id"] == str(ATTEMPT_ID)


@pytest.mark.parametrize(
    "header",
    [
        {"retries": "x"},
        {"id": []},
        {"shadow": [1]},
        {"timelimit": "xyz"},
        {"stamped_headers": 5},
        {"eta": "2999-01-01"},
        {"compression": "gzip"},
    ],
    ids=repr,
)
def test_of_a_wake_up_nothing_is_taken_but_the_attempt(header: dict[str, Any]) -> None:
    order = {"chain": [{"task": "barlow.wake"}], "callbacks": [5]}
    given = _message([*BODY[:2], order])
    given["headers"] |= header
    given["properties"] |= {"delivery_tag": [], "delivery_info": 5, "reply_to": "x"}
    taken = json.loads(written_anew(json.dumps(given).encode(), QUEUE))
    assert json.loads(b64decode(taken["body"])) == BODY
    assert set(taken["headers"]) == {"lang", "task", "id", "root_id"}
    assert taken["headers"]["id"] == str(ATTEMPT_ID)
    assert taken["properties"].pop("delivery_tag")
    assert taken["properties"] == {
        "body_encoding": "base64",
        "delivery_info": {"exchange": "", "routing_key": QUEUE},
    }


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (b"", "Invalid JSON"),
        (b"\xff\xfe", "Invalid JSON"),
        (b"{", "Invalid JSON"),
        (b"null", "an object"),
        (b"[" * 5000, "Invalid JSON"),
        (b'{"body": "\\ud800"}', "Invalid JSON"),
        (_message() | {"body": None}, "body: "),
        (_message() | {"body": "***"}, "Invalid JSON"),
        (_message(b"\xff"), "Invalid JSON"),
        (_message(b"[" * 5000), "Invalid JSON"),
        (_message({}), "array"),
        (_message(BODY[:2]), "2: "),
        (_message([[1], *BODY[1:]]), "0: "),
        (_message([[], {"attempt_id": "x"}, {}]), "1.attempt_id: "),
        (_message(headers=[1]), "headers: "),
        (_message(headers={"id": "1"}), "headers.task: "),
        (_message(headers={"task": ["os.system"]}), "headers.task: "),
        (_message(headers={"task": "celery.chain"}), "headers.task: "),
        (_message(properties=None), "properties: "),
        (_message(properties={"body_encoding": "zip"}), "properties.body_encoding: "),
        (_message(**{"content-type": "application/x-python-serialize"}), "content-type: "),
        (_message(**{"content-type": [5]}), "content-type: "),
        (_message() | {"more": "x" * 20_000}, "none of ours more than"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_what_is_no_wake_up_is_refused_in_a_line(item: bytes | dict[str, Any], said: str) -> None:
    raw = item if isinstance(item, bytes) else json.dumps(item).encode()
    with pytest.raises(ValueError, match=r"^.{1,150}$") as refused:
        written_anew(raw, QUEUE)
    assert said in str(refused.value)
