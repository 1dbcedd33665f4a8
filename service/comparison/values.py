"""Values of specs and results by their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def flat(value: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves by JSON pointer; a list counts as one leaf."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flat(inner, f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}")
    elif pointer:
        yield pointer, value


def all_equal(values: Sequence[Any]) -> bool:
    """Whether no value differs from the others."""
    return all(value == values[0] for value in values)
