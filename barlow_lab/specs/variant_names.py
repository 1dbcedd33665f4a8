"""What the jobs are called that an experiment makes of one: `pretrain-lambda_0.01-seed_2`."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from barlow_lab.specs.variation import Axis, Varied, text_of

LONGEST = 100
"""Characters of a name."""
_LONGEST_VALUE = 24
_DIGITS = 8
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]+")


def seed_suffix(seed: int) -> str:
    """The end of the name of a job that is one of several seeds."""
    return f"-seed_{seed}"


def words_of_fields(job: str, axes: Sequence[Axis]) -> list[str]:
    """A word for each field of `axes`, in their order: its last part, or as much before it as tells it from others."""
    fields = [(axis.owner, field) for axis in axes for field in axis.fields]
    # A field of the job itself keeps the short word where a job that it judges varies one of the same name.
    last = Counter(_last(field) for _, field in fields)
    own = Counter(_last(field) for owner, field in fields if owner == job)
    whole = Counter(".".join(field.path) for _, field in fields)
    out = []
    for owner, field in fields:
        word, path = _last(field), ".".join(field.path)
        if last[word] == 1 or (owner == job and own[word] == 1):
            out.append(word)
        else:
            out.append(path if whole[path] == 1 else f"{owner or 'experiment'}.{path}")
    return out


def word_of_value(field: Varied, index: int) -> str:
    """A value in a few characters of those that a name may have; a long or nested one is told by its number."""
    value = field.values[index]
    flat = isinstance(value, list) and not any(isinstance(item, list | dict) for item in value)
    if isinstance(value, list):
        text = "x".join(map(_text, value)) if flat else ""
    elif isinstance(value, dict):
        named = [other.get("name") if isinstance(other, dict) else None for other in field.values]
        text = value["name"] if isinstance(named[index], str) and named.count(named[index]) == 1 else ""
    else:
        text = _text(value)
    text = _NOT_IN_A_NAME.sub("_", text.replace("+", ""))
    return text if 0 < len(text) <= _LONGEST_VALUE else f"no{index + 1}"


def names_of(job: str, parts: Sequence[Sequence[str]]) -> list[str]:
    """The names of all jobs that one becomes, each of the words of what varies in it: all different, none too long."""
    names = [_short("-".join([job[:LONGEST], *(_NOT_IN_A_NAME.sub("_", word) for word in words)])) for words in parts]
    often = Counter(names)
    return [_short(f"{name}-{i + 1}") if often[name] > 1 else name for i, name in enumerate(names)]


def _last(field: Varied) -> str:
    """`objective` for objective.name, which chooses one."""
    return field.path[-2] if field.path[-1] == "name" and len(field.path) > 1 else field.path[-1]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else text_of(value)


def _short(name: str) -> str:
    if len(name) <= LONGEST:
        return name
    told = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:_DIGITS]
    return f"{name[: LONGEST - _DIGITS - 1]}-{told}"
