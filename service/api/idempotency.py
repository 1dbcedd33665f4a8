"""Idempotency-Key (follows draft-ietf-httpapi-idempotency-key-header-07): one key and body, one resource.

A key belongs to the user, so that a script that was given a new token meanwhile repeats nothing.

A key is kept for 7 days at least; after that it may make something new.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any

from fastapi import Depends, Header
from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.orm import Session

from barlow_lab.specs import canonical_json
from service.api.problems import Problem, invalid_parameter
from service.database.tables import IdempotencyKey

KEPT_DAYS = 7
FORGET_AT_ONE_IN = 100

_VISIBLE = re.compile(r"[\x21-\x7e]{1,255}")


def _key(
    idempotency_key: Annotated[
        str | None,
        Header(description="Up to 255 visible ASCII characters; makes a repeat of this request safe for 7 days"),
    ] = None,
) -> str | None:
    if idempotency_key is not None and not _VISIBLE.fullmatch(idempotency_key):
        raise invalid_parameter("Idempotency-Key", "1 to 255 visible ASCII characters without spaces; a UUID is good")
    return idempotency_key


IdempotencyKeyDep = Annotated[str | None, Depends(_key)]
"""The key of the request, if it has one."""


def replayed(session: Session, *, owner: str, route: str, key: str, request: Any) -> str | None:
    """The resource that this key made before; None: this request holds the key until its transaction ends.

    Raises:
        Problem: 409 while another request holds the key; 422 when it made something of another body.
    """
    if not session.scalar(select(func.pg_try_advisory_xact_lock(_number(owner, route, key)))):
        raise Problem("submit-in-progress", "the first request with this key has not been answered yet")
    row = session.get(IdempotencyKey, (owner, route, key))
    if row is None:
        return None
    if row.request_digest != _digest(request):
        raise Problem("idempotency-key-reused", f"the key made {row.resource} of another body; use a new key")
    return row.resource


def remember(session: Session, *, owner: str, route: str, key: str, request: Any, resource: str) -> None:
    """Tie the key to what it made, in the transaction that makes it; now and then, forget keys that are too old."""
    # Finding them reads the whole table, which is for one key in so many to do: which ones, its hash says.
    if _number(owner, route, key) % FORGET_AT_ONE_IN == 0:
        forget(session)
    session.add(IdempotencyKey(owner=owner, route=route, key=key, request_digest=_digest(request), resource=resource))


def forget(session: Session) -> None:
    """Delete the keys that are older than KEPT_DAYS, but for those that another request deletes now."""
    too_old = IdempotencyKey.created_at < func.now() - func.make_interval(0, 0, 0, KEPT_DAYS)
    row = (IdempotencyKey.owner, IdempotencyKey.route, IdempotencyKey.key)
    old = select(*row).where(too_old).with_for_update(skip_locked=True)
    session.execute(
        delete(IdempotencyKey).where(tuple_(*row).in_(old)), execution_options={"synchronize_session": False}
    )


def _number(owner: str, route: str, key: str) -> int:
    return int.from_bytes(hashlib.sha256("\0".join((owner, route, key)).encode()).digest()[:8], signed=True)


def _digest(request: Any) -> str:
    return hashlib.sha256(canonical_json(request).encode()).hexdigest()
