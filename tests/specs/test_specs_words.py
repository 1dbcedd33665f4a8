"""Texts of others where people read them."""

import io
import logging
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barlow_lab.foreign_text import shown, shown_lines
from service.logs import OneLine


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plain λ é 日本 🏴 a b", "plain λ é 日本 🏴 a b"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("\x1b[2J\x9b2J\x07\x7f\0", r"\x1b[2J\x9b2J\x07\x7f\x00"),
        ("\x85\u2028\u2029\x0b\x0c\x1c", r"\x85\u2028\u2029\x0b\x0c\x1c"),
        ("\u202efdp\u2066\u2069\u200f\u200e\u061c", r"\u202efdp\u2066\u2069\u200f\u200e\u061c"),
        ("\udcff", r"\udcff"),
        (r"C:\new", r"C:\new"),
    ],
)
def test_what_cannot_be_seen_is_shown_as_its_escape(text: str, said: str) -> None:
    assert shown(text) == said


@given(st.text(st.characters()))
def test_what_is_shown_is_one_line_that_can_be_written_and_is_shown_the_same_again(text: str) -> None:
    once = shown(text)
    assert len(once.splitlines()) <= 1
    once.encode()
    assert shown(once) == once
    assert not {unicodedata.category(character) for character in once} & {"Cc", "Cs", "Zl", "Zp"}
    assert not {unicodedata.bidirectional(character) for character in once} & {"LRE", "RLE", "LRO", "RLO", "PDF"}
    assert not {unicodedata.bidirectional(character) for character in once} & {"LRI", "RLI", "FSI", "PDI"}
    assert shown_lines(text).replace("\n", "").replace("\t", "") == shown(text.replace("\n", "").replace("\t", ""))


def test_a_message_in_the_log_is_one_line_and_a_traceback_has_its_own() -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(OneLine("%(levelname)s %(message)s"))
    log = logging.Logger("test")
    log.addHandler(handler)
    log.warning("data set %s", "a\nWARNING forged \x1b[2J")
    assert out.getvalue() == "WARNING data set a\\nWARNING forged \\x1b[2J\n"
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        log.exception("failed")
    assert out.getvalue().endswith("ValueError: \\x1b[2J\n")
    assert "\nTraceback (most recent call last):\n" in out.getvalue()
