"""What a trainer says in a form that the run database can hold."""

from __future__ import annotations

from typing import Any


def storable(value: Any) -> Any:
    """A JSON value whose strings Postgres takes: NUL and lone surrogates stand as `\\x00` and `\\udcff`.

    A file name that is not UTF-8 brings surrogates into a message. Refused, that one line would hold up all others.
    """
    match value:
        case str():
            return value.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")
        case dict():
            return {storable(key): storable(item) for key, item in value.items()}
        case list():
            return [storable(item) for item in value]
        case _:
            return value
