"""Pages by keyset: a token says where the last page ended, so nothing is skipped or shown twice as rows arrive."""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query

from service.api.problems import invalid_parameter

PageToken = Annotated[
    str | None, Query(max_length=500, description="`next_page_token` of the page before, with the same filters")
]
PageSize = Annotated[int, Query(ge=1, description="Items of a page; more than 200 counts as 200")]
LARGEST_PAGE = 200


def write_token(*key: str | int | UUID) -> str:
    """The token of the page after the row with this key."""
    return base64.urlsafe_b64encode(json.dumps(key, default=str).encode()).decode().rstrip("=")


def read_token(token: str | None, *types: type) -> list[Any] | None:
    """The key in a token, or None without one.

    Raises:
        Problem: 422; the token is not one of this list.
    """
    if token is None:
        return None
    try:
        key = json.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
        return [_part(part, kind) for part, kind in zip(key, types, strict=True)]
    except (ValueError, TypeError, RecursionError):
        message = "not a token of this list; take next_page_token of the page before"
        raise invalid_parameter("page_token", message) from None


def _part(part: Any, kind: type) -> Any:
    if kind is UUID:
        return UUID(str(part))
    too_large = isinstance(part, int) and abs(part) >= 2**63
    if type(part) is not kind or too_large or "\x00" in str(part):
        raise ValueError(part)
    str(part).encode()  # half a surrogate pair, which JSON can spell, is no text to a database
    return part
