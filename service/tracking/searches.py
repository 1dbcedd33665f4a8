"""What one search may ask for. MLflow joins a table for each condition and each key of an order, and PostgreSQL plans
such a query in a time that grows faster than any of them: three hundred keys in 6 kB of text took a minute."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl

MOST = 30
"""Conditions of a filter, and keys of an order."""
MOST_LITERALS = 100
"""Texts written into a query of GraphQL, where nobody can tell keys of an order from others."""

MOST_WORDS = 400
"""Of a query of GraphQL, names and brackets alike; the longest of MLflow's pages has 100. Each is compared with each
other."""
DEEPEST = 60
"""Brackets of a query, and of a body. What reads them goes so deep, and answers 500 where it can go no deeper."""

_AND = re.compile(r"(?<![^\W\d])and\b", re.IGNORECASE)  # also right behind a number, as its reader has it
_ESCAPED = re.compile(r"\\u\{?0*([0-9a-fA-F]{2,4})\}?")
_ORDER = ("order_by", "orderby")
_TOKEN = ("page_token", "pagetoken")
_OF_RECORDS = re.compile(rb"[0-9]{1,18}:[\w-]+")


def refuse_costly(query_string: bytes, body: bytes) -> None:
    """Look at what a search asks, in its address and in its body.

    Raises:
        ValueError: it is too much, or the body is no JSON; the words are for whoever sent it.
    """
    said = _read(body)
    # MLflow takes JSON in JSON, too.
    said = _read(said) if isinstance(said, str) else said
    asked = [*parse_qsl(query_string.decode("latin-1")), *_texts(said)]
    if sum(key.lower() in _ORDER for key, _ in asked) > MOST:
        raise ValueError(f"a search is ordered by at most {MOST} keys; leave some out")
    for key, text in asked:
        if key == "query" and text.count('"') > 2 * MOST_LITERALS:
            raise ValueError(f"a query has at most {MOST_LITERALS} texts in it; send them as variables")
        if len(_AND.findall(_ESCAPED.sub(lambda found: chr(int(found[1], 16)), text))) >= MOST:
            raise ValueError(f"a filter has at most {MOST} conditions, joined by AND; search in several steps")


def refuse_odd_tokens(query_string: bytes, body: bytes) -> None:
    """Look at the tokens of pages, where MLflow fails (500) at what it has not written itself.

    Raises:
        ValueError: one of them is of no page; the words are for whoever sent it.
    """
    said = _read(body)
    said = _read(said) if isinstance(said, str) else said
    for key, text in (*parse_qsl(query_string.decode("latin-1")), *_texts(said)):
        if key.lower() in _TOKEN and text and not _is_token(text):
            raise ValueError("that is no token of a page; take the next_page_token of the page before")


def _is_token(text: str) -> bool:
    try:
        decoded = base64.b64decode(text)
        if _OF_RECORDS.fullmatch(decoded):
            return True
        said = json.loads(decoded)
    except (ValueError, RecursionError):
        return False
    offset = said.get("offset", 0) if isinstance(said, dict) else None
    return type(offset) is int and 0 <= offset < 2**63


def refuse_odd_graphql(body: bytes) -> None:
    """Look at a question to /graphql, where MLflow calls whatever it cannot read an error of its own (500).

    Raises:
        ValueError: it is none, or too large; the words are for whoever sent it.
    """
    # As late as MLflow does: it takes a moment.
    from graphql import GraphQLError, parse

    said = _read(body)
    query, variables = (said.get("query"), said.get("variables")) if isinstance(said, dict) else (None, None)
    if not isinstance(query, str) or not isinstance(variables, dict | None):
        raise ValueError("what /graphql is asked is an object of JSON with a text `query`, and an object `variables`")
    if sum(query.count(bracket) for bracket in "{[(") > DEEPEST:
        raise ValueError(f"a query has at most {DEEPEST} pairs of brackets in it; ask in several steps")
    try:
        parse(query, max_tokens=MOST_WORDS)
    except GraphQLError as error:
        raise ValueError(f"the query cannot be read, or has more than {MOST_WORDS} words: {error.message}") from None


def _read(body: bytes | str) -> Any:
    """The JSON of a body; None: there is no body.

    Raises:
        ValueError: it is none, or nested too deeply.
    """
    try:
        said = json.loads(body) if body else None
    except (ValueError, RecursionError):
        raise ValueError("the body is no JSON") from None
    level = [said]
    for _ in range(DEEPEST):
        level = [inner for item in level for inner in _inside(item)]
        if not level:
            return said
    raise ValueError(f"the body is nested more than {DEEPEST} deep")


def _inside(item: Any) -> Iterable[Any]:
    if isinstance(item, dict):
        return item.values()
    return item if isinstance(item, list) else ()


def _texts(value: Any) -> Iterator[tuple[str, str]]:
    """Every text in a JSON value, with the name it stands under; those of a list stand under the list's. Whatever else
    stands in a list counts as an empty text there."""
    rest: list[tuple[str, Any]] = [("", value)]
    while rest:
        key, item = rest.pop()
        if isinstance(item, dict):
            rest += item.items()
        elif isinstance(item, list):
            rest += [(key, inner) for inner in item]
            yield from ((key, "") for inner in item if not isinstance(inner, str))
        elif isinstance(item, str):
            yield key, item
