"""Spec files: JSON by the ending .json, YAML otherwise. Nothing is silently lost, nothing grows without bound."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from barlow_lab.given_files import open_regular
from barlow_lab.specs.faults import Fault
from barlow_lab.specs.parsing import SpecError

MAX_BYTES = 1 << 20
MAX_VALUES = 50_000
MAX_DEPTH = 50
MAX_TAGGED = 4000
"""Characters of a value with a tag of its own, as `!!int 1:30`: what YAML makes of some takes the square of them."""


def load_spec_file(path: Path, *, from_shell: bool = False) -> Any:
    """The plain value of a YAML or JSON file; `from_shell`: one that is named on a command line may be a pipe, too.

    YAML is read by the core schema of YAML 1.2, so `3e-3` is a number and `on` and 2026-01-01 are texts; `<<: *name`
    takes in the keys of another object that are not beside it. A key that stands twice is refused: which of the two was
    meant is not ours to guess.

    Raises:
        SpecError: the text is not YAML or JSON, repeats a key, or is too large (aliases count as what they stand for).
        OSError: the file cannot be read.
    """
    with path.open("rb") if from_shell else open_regular(path) as file:
        raw = file.read(MAX_BYTES + 1)
    read: Callable[[str], Any] = _read_json if path.suffix == ".json" else _read_yaml
    try:
        if len(raw) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES:,} bytes")
        return read(raw.decode("utf-8-sig"))
    except RecursionError:
        said = "it is nested too deeply"
    except (yaml.YAMLError, ValueError) as error:
        said = " ".join(str(error).split())
    raise SpecError([Fault("", f"{path.name} cannot be read: {said}")])


def read_value(text: str) -> Any:
    """A value of YAML, as in a file.

    Raises:
        SpecError: it is none.
    """
    try:
        return _read_yaml(text)
    except RecursionError:
        said = "it is nested too deeply"
    except (yaml.YAMLError, ValueError) as error:
        said = " ".join(str(error).split())
    raise SpecError([Fault("", f"{text[:100]!r} cannot be read: {said}")])


def _read_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_refused_constant)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            raise ValueError(f"the key {key!r} stands twice in one object")
        value[key] = item
    return value


def _refused_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


_MERGE = "tag:yaml.org,2002:merge"


class _CoreLoader(yaml.SafeLoader):
    """The safe loader with the plain scalars of YAML 1.2 (10.3.2) in place of YAML 1.1's, and its merge key."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as the base declares it


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
):
    _CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)
_CoreLoader.add_constructor(_MERGE, lambda loader, node: node.value)  # one that is a value and no key


def _read_yaml(text: str) -> Any:
    loader = _CoreLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node)
        try:
            return loader.construct_document(node)
        except (IndexError, KeyError, AttributeError, TypeError) as error:  # of a tag and a text that do not fit
            raise ValueError(f"a value does not fit the tag before it ({type(error).__name__}: {error})") from error
    finally:
        loader.dispose()


_PLAIN_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:null")


def _check(root: yaml.Node) -> None:
    """Refuse repeated keys, and trees that aliases blow up: shared nodes are counted each time they are used."""
    waiting, values = [(root, 0)], 0
    while waiting:
        node, depth = waiting.pop()
        values += 1
        if values > MAX_VALUES or depth > MAX_DEPTH:
            raise ValueError(f"with its aliases written out it has over {MAX_VALUES:,} values or {MAX_DEPTH} levels")
        if isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN_TAGS and len(node.value) > MAX_TAGGED:
            line = node.start_mark.line + 1
            raise ValueError(f"line {line}: a number, or a value with a tag, has over {MAX_TAGGED:,} characters")
        if isinstance(node, yaml.SequenceNode):
            waiting += [(item, depth + 1) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, item in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in seen:
                        line = key.start_mark.line + 1
                        raise ValueError(f"line {line}: the key {key.value!r} stands twice in one object")
                    seen.add(key.value)
                if key.tag == _MERGE and not _is_mergeable(item):
                    line = key.start_mark.line + 1
                    raise ValueError(f"line {line}: `<<` takes in another object, as `<<: *name`, or a list of such")
                waiting += [(key, depth + 1), (item, depth + 1)]


def _is_mergeable(node: yaml.Node) -> bool:
    nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
    return all(isinstance(each, yaml.MappingNode) for each in nodes)
