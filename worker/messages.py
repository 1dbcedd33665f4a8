"""Messages as they come out of Redis. Whoever has its password may put anything there; a wake-up goes on, no more."""

from __future__ import annotations

import json
import logging
import uuid
from base64 import b64encode
from contextlib import suppress
from typing import Any, Literal

import redis
from celery import Celery
from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as transport
from pydantic import Base64Bytes, BaseModel, Field, TypeAdapter, ValidationError

from service.broker import WAKE_TASK

MESSAGE_BYTES = 16_384
"""A wake-up has less than a kilobyte."""

log = logging.getLogger(__name__)


class _Headers(BaseModel):
    task: Literal["barlow.wake"]


class _Properties(BaseModel):
    body_encoding: Literal["base64"]


class _Message(BaseModel):
    body: Base64Bytes
    headers: _Headers
    properties: _Properties
    content_type: Literal["application/json"] = Field(alias="content-type")


class _Arguments(BaseModel):
    attempt_id: uuid.UUID


_BODY: TypeAdapter[tuple[tuple[()], _Arguments, Any]] = TypeAdapter(tuple[tuple[()], _Arguments, Any])


def written_anew(item: bytes, queue: str) -> bytes:
    """The wake-up that `item` is, with nothing of it but the attempt's id.

    Celery believes what stands in a message: of a field of another type it ends, or puts the message back and meets
    it again for ever; and tasks to call afterwards it sends.

    Raises:
        ValueError: it is no wake-up; says in a line why.
    """
    if len(item) > MESSAGE_BYTES:
        raise ValueError(f"it has {len(item)} bytes, and none of ours more than {MESSAGE_BYTES}")
    try:
        _, arguments, _ = _BODY.validate_json(_Message.model_validate_json(item).body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{place}: {first['msg']}" if place else first["msg"]) from None
    attempt_id = str(arguments.attempt_id)
    wake_up = {
        "body": b64encode(json.dumps([[], {"attempt_id": attempt_id}, {}]).encode()).decode(),
        "headers": {"lang": "py", "task": WAKE_TASK, "id": attempt_id, "root_id": attempt_id},
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
            "delivery_info": {"exchange": "", "routing_key": queue},
        },
        "content-type": "application/json",
        "content-encoding": "utf-8",
    }
    return json.dumps(wake_up).encode()


class _Client(redis.Redis):
    """Hands on what it reads from a queue if it is a wake-up, and otherwise says that nothing was there."""

    def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
        answer = super().parse_response(connection, command_name, **options)  # type: ignore[no-untyped-call]
        if command_name != "BRPOP" or not answer:
            return answer
        queue, item = answer
        try:
            return queue, written_anew(item, queue.decode())
        except ValueError as error:
            log.warning("a message to this node is no wake-up, and is thrown away: %s", error)
            return None


class _Sieve:
    do_restore = False  # what ends Celery is not put back, to end it again

    def _get_client(self) -> type[_Client]:
        return _Client


class _Channel(_Sieve, transport.Channel):
    pass


class Transport(transport.Transport):
    """Redis, of which only wake-ups come."""

    Channel = _Channel


class _SentinelChannel(_Sieve, transport.SentinelChannel):
    pass


class SentinelTransport(transport.SentinelTransport):
    """The same behind Sentinels."""

    Channel = _SentinelChannel


def throw_away_what_is_no_queue(app: Celery, queue: str) -> None:
    """Delete keys of another type that have the name of this queue: reading them ends Celery, each time anew."""
    with suppress(redis.RedisError, OperationalError), app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        for priority in channel.priority_steps:
            key = channel._q_for_pri(queue, priority)
            if (kind := channel.client.type(key).decode()) not in ("list", "none"):
                channel.client.delete(key)
                log.warning("a %s had the name of this node's queue, and is thrown away", kind)


def sieve() -> None:
    """From now on connections of this process let nothing but wake-ups in."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{Transport.__name__}"
    TRANSPORT_ALIASES["sentinel"] = f"{__name__}:{SentinelTransport.__name__}"
