"""Run lengths of masks in COCO's JSON: lists of whole numbers, or texts of them."""

from __future__ import annotations

from typing import Any

from trainer.data.formats.json_annotations import whole

MAX_BITS = 60
"""Most bits of a number in compressed run lengths."""


def whole_numbers(values: Any) -> list[int] | None:
    """A list of whole numbers, however they are written; None where it is none."""
    if not isinstance(values, list):
        return None
    found = [number for value in values if (number := whole(value)) is not None]
    return found if len(found) == len(values) else None


def uncompressed(text: str) -> list[int]:
    """Run lengths from their text: 5 bits a character, the lowest first, bit 6 where more follow, the last one's bit 5
    the sign; from the fourth on the difference to the run before the last (rleFrString in pycocotools' maskApi.c).

    Raises:
        ValueError: the text has other characters, or ends within a number.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError("compressed run lengths have other characters than they may")
        if shift >= MAX_BITS:
            raise ValueError("compressed run lengths hold a number that is too large")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("compressed run lengths end within a number")
    return runs
