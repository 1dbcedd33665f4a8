"""How much text MLflow can write above a picture of a run before the picture is out of its tile.

A tile has the same height whatever stands in it: each line of the params above takes one from the picture. They are one
text, `key=value, key=value`, that breaks at blanks only, and a word wider than the tile pushes the picture aside.
"""

from __future__ import annotations

from collections.abc import Iterable

MOST_LINES = 8
"""With one more, less than half of a heatmap's matrix is seen."""
_LINE = 16500
"""198 pixels of text of 12 pixels, the tile of a window 1280 wide with MLflow's assistant open, in thousandths of the
size of the text."""
_USUAL, _CAPITAL, _FOREIGN = 556, 700, 1000
_WIDTHS = {
    character: width
    for width, characters in {
        222: "ijl'|",
        278: "ft.,:;/\\!I[] ",
        333: "r-()`",
        390: '*{}"',
        500: "cksvxyzJ",
        584: "+=<>~",
        722: "w",
        833: "mM",
        889: "%",
        944: "W",
        1015: "@",
    }.items()
    for character in characters
}
"""Of Helvetica, which Arial and Liberation Sans follow, by Adobe's metrics of its core fonts."""


def fits(params: Iterable[tuple[str, str]]) -> bool:
    """Whether a heatmap is seen below these, as key and value."""
    words = ", ".join(f"{key}={value}" for key, value in params).split(" ")
    lines, room = 0, -1
    for word in map(_width, words):
        if word > _LINE:
            return False
        if word + _WIDTHS[" "] > room:
            lines, room = lines + 1, _LINE + _WIDTHS[" "]
        room -= word + _WIDTHS[" "]
    return lines <= MOST_LINES


def is_narrow(key: str, value: str) -> bool:
    """Whether no word of a param, with what stands around it, is wider than a line."""
    return all(_width(word) <= _LINE for word in f"{key}={value},".split(" "))


def _width(text: str) -> int:
    return sum(map(_of_one, text))


def _of_one(character: str) -> int:
    if not character.isascii():
        return _FOREIGN
    return _WIDTHS.get(character, _CAPITAL if character.isupper() else _USUAL)
