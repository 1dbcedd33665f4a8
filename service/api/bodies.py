"""JSON bodies, read with a limit and refused in our own words."""

from __future__ import annotations

import email.message
import json
import math
import re
from collections import Counter
from typing import Annotated, Any, NoReturn, TypeAlias

from fastapi import Depends, Request

from barlow_lab.specs import Fault
from barlow_lab.specs.files import MAX_VALUES
from barlow_lab.specs.parsing import MAX_FAULTS, pointer_of
from service.admission.errors import InvalidSpec
from service.api.problems import Problem

_DEEPEST = 32

_NOT_TEXT = re.compile("[\x00\ud800-\udfff]")

# The place of a value: the step to what holds it, and its name or number there.
_Step: TypeAlias = "tuple[_Step | None, str | int]"


async def read_body(request: Request) -> bytes:
    """The body, never more of it than the limit.

    Raises:
        Problem: 413, 415.
    """
    limit: int = request.app.state.settings.max_body_bytes
    # The rest of the body stays unread, so the connection cannot be used again.
    too_large = Problem("body-too-large", f"at most {limit:,} bytes are read", headers={"Connection": "close"})
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limit:
        raise too_large
    header = email.message.Message()
    header["content-type"] = request.headers.get("content-type", "")
    if header.get_content_type() != "application/json":
        said = request.headers.get("content-type") or "none"
        raise Problem(
            "unsupported-media-type", f"Content-Type is {said}; send application/json", headers={"Connection": "close"}
        )
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


def _json_body(raw: Annotated[bytes, Depends(read_body)]) -> Any:
    return parse_json(raw)


JsonBody = Annotated[Any, Depends(_json_body)]
"""The parsed JSON body of a request."""


def parse_json(raw: bytes) -> Any:
    """Strict JSON: no NaN, no repeated names, nothing that Postgres or another JSON reader would not give back.

    Raises:
        Problem: 400 with line and column.
        InvalidSpec: with the pointer to each value.
    """
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_repeats)
    except UnicodeDecodeError as error:
        raise Problem("malformed-json", f"byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        detail = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise Problem("malformed-json", detail) from None
    except RecursionError:
        raise Problem("malformed-json", f"nested deeper than {_DEEPEST} levels") from None
    except _NotJson as error:
        raise Problem("malformed-json", str(error)) from None
    except ValueError:  # Python reads no integer of more than 4,300 digits
        raise Problem("malformed-json", "a number has thousands of digits; write a shorter one") from None
    faults = list(_unstorable(value))
    if faults:
        raise InvalidSpec(faults)
    return value


class _NotJson(ValueError):
    """What Python's reader would take and JSON does not have."""


def _no_constant(word: str) -> NoReturn:
    raise _NotJson(f"{word} is not JSON; write a number or null")


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise _NotJson(f"the name {twice[:100]!r} stands twice in one object; keep one of the two")
    return out


def _unstorable(value: Any) -> list[Fault]:
    """Values that JSON can write and the run database cannot hold. Without recursion: depth is what is checked.

    The way to a value is a chain of steps; a pointer is written for a fault alone. Written for every value, pointers
    below one long name would take thousands of times the memory of the body.
    """
    faults: list[Fault] = []
    rest: list[tuple[Any, _Step | None, int]] = [(value, None, 0)]
    values = 0
    while rest and len(faults) <= MAX_FAULTS:
        item, way, depth = rest.pop()
        values += 1
        if values > MAX_VALUES:
            return [Fault("", f"it has over {MAX_VALUES:,} values; send it in parts")]
        if depth > _DEEPEST:
            return [Fault(_pointer(way)[:200], f"nested deeper than {_DEEPEST} levels")]
        if isinstance(item, dict):
            for name, inner in item.items():
                if not _is_text(name):
                    faults.append(Fault(_pointer(way), "a name holds a NUL or half of a surrogate pair; take it out"))
                else:
                    rest.append((inner, (way, name), depth + 1))
        elif isinstance(item, list):
            rest += [(inner, (way, i), depth + 1) for i, inner in enumerate(item)]
        elif isinstance(item, str) and not _is_text(item):
            faults.append(Fault(_pointer(way), "the text holds a NUL or half of a surrogate pair; take it out"))
        elif isinstance(item, float) and not math.isfinite(item):
            faults.append(Fault(_pointer(way), "the number is too large for a 64-bit float"))
    return faults


def _pointer(way: _Step | None) -> str:
    parts: list[str | int] = []
    while way is not None:
        way, part = way
        parts.append(part)
    return pointer_of(reversed(parts))


def _is_text(text: str) -> bool:
    return _NOT_TEXT.search(text) is None
