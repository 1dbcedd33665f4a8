"""Idempotency-Key (follows draft-ietf-httpapi-idempotency-key-header-07): one key and body, one resource."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any

from fastapi import Depends, Header
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.api.problems import Problem, invalid_parameter
from service.database.tables import IdempotencyKey
from trainer.specs import canonical_json

_VISIBLE = re.compile(r"[\x21-\x7e]{1,255}")


def _key(
    idempotency_key: Annotated[
        str | None, Header(description="Up to 255 visible ASCII characters; makes a repeated submit safe")
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
    lock = int.from_bytes(hashlib.sha256("\0".join((owner, route, key)).encode()).digest()[:8], signed=True)
    if not session.scalar(select(func.pg_try_advisory_xact_lock(lock))):
        raise Problem("submit-in-progress", "the first request with this key has not been answered yet")
    row = session.get(IdempotencyKey, (owner, route, key))
    if row is None:
        return None
    if row.request_digest != _digest(request):
        raise Problem("idempotency-key-reused", f"the key made {row.resource} of another body; use a new key")
    return row.resource


def remember(session: Session, *, owner: str, route: str, key: str, request: Any, resource: str) -> None:
    """Tie the key to what it made, in the transaction that makes it."""
    session.add(IdempotencyKey(owner=owner, route=route, key=key, request_digest=_digest(request), resource=resource))


def _digest(request: Any) -> str:
    return hashlib.sha256(canonical_json(request).encode()).hexdigest()
