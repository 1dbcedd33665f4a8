"""How the id of a row is written."""

from __future__ import annotations

import re
import uuid

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def read_uuid(text: str) -> uuid.UUID | None:
    """The id, if the text is one in the usual form."""
    return uuid.UUID(text) if _UUID.fullmatch(text) else None
