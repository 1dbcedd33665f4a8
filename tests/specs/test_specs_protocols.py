"""The paper's protocols under both of their names."""

from typing import Any

import pytest

from barlow_lab.specs import digest, parse_spec
from barlow_lab.specs.protocols import FollowsProtocol, shown_protocol

JUDGED = {"data": "digits", "backbone_from": {"random": 0}, "backbone": {"name": "tiny"}}


@pytest.mark.parametrize("fields", [{"kind": "linear"}, {"kind": "semi_supervised", "labels": {"percent": 10}}])
def test_paper_and_its_former_name_are_one_protocol(fields: dict[str, Any]) -> None:
    paper, former, unsaid = (parse_spec({**JUDGED, **fields, **said}) for said in
                             ({"protocol": "paper"}, {"protocol": "document"}, {}))  # fmt: skip
    assert paper == former == unsaid
    assert digest(paper) == digest(former)
    assert paper.resolved()["protocol"] == "document"
    schema = type(paper).model_json_schema()["properties"]["protocol"]
    assert schema["enum"][:2] == ["paper", "document"]
    assert schema["default"] == "paper"
    assert isinstance(paper, FollowsProtocol)
    assert set(schema["enum"]) == {"paper", *type(paper).PROTOCOLS}


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("linear-document/1", "linear-paper/1"),
        ("semi-supervised-document/2", "semi-supervised-paper/2"),
        ("document", "paper"),
        ("knn/1", "knn/1"),
        ("linear-documented/1", "linear-documented/1"),
    ],
)
def test_people_read_paper(told: str, shown: str) -> None:
    assert shown_protocol(told) == shown
