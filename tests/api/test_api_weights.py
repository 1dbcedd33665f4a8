"""A weights file that no node has is refused at submit, as data sets are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from api_kit import KNN, InProcess, faults_of
from sqlalchemy import event
from sqlalchemy.orm import Session

from service.api.app import create_app
from service.database.tables import NOBODY, Node
from service.settings import Settings

FILE: dict[str, Any] = {**KNN, "backbone_from": {"file": "published/resnet50.pth"}, "backbone": {"name": "resnet50"}}
TORCHVISION: dict[str, Any] = {**KNN, "backbone_from": {"torchvision": "ResNet50_Weights.IMAGENET1K_V2"}}
PLAN = "/jobs?validate_only=true"


@pytest.fixture
def has(session: Session, add_node: Callable[..., None]) -> Callable[..., None]:
    """What a node has said of its backbones; nothing said: not known yet."""

    def say(node: str, *names: str, known: bool = True, **more: Any) -> None:
        if session.get(Node, node) is None:
            add_node(node, 2)
        row = session.get_one(Node, node)
        row.backbones = {"names": list(names), **more} if known else None
        session.commit()

    return say


def test_while_no_node_is_known_or_one_has_not_said_it_the_job_is_accepted(
    api: httpx.Client, has: Callable[..., None]
) -> None:
    assert api.post(PLAN, json=FILE).status_code == 200
    has("host", known=False)
    has("other", "x.pth")
    assert api.post(PLAN, json=FILE).status_code == 200
    has("host", "x.pth", complete=False)
    assert api.post(PLAN, json=FILE).status_code == 200


def test_a_worker_of_before_that_has_left_says_nothing(
    api: httpx.Client, has: Callable[..., None], session: Session
) -> None:
    has("host", known=False)
    session.get_one(Node, "host").instance = NOBODY
    session.commit()
    assert api.post(PLAN, json=FILE).status_code == 200, "nobody has said anything"
    has("other", "x.pth")
    assert api.post(PLAN, json=FILE).status_code == 422


def test_what_one_node_has_is_accepted(api: httpx.Client, has: Callable[..., None]) -> None:
    has("host", folder=False)
    has("other", "published/resnet50.pth", "resnet50-11ad3fa6.pth")
    for spec in (FILE, TORCHVISION):
        answer = api.post(PLAN, json=spec)
        assert answer.status_code == 200, answer.text


def test_what_none_has_is_refused_with_what_is_there_and_where_to_put_it(
    api: httpx.Client, has: Callable[..., None]
) -> None:
    has("host", "published/resnet5O.pth")
    has("other", folder=False)
    [(pointer, said)] = faults_of(api.post("/jobs", json=FILE)).items()
    assert pointer == "/backbone_from/file"
    assert "no node has 'published/resnet50.pth'; did you mean 'published/resnet5O.pth'?" in said
    assert "`barlow up --backbones DIR`, or BARLOW_BACKBONES_DIR" in said
    [(pointer, said)] = faults_of(api.post("/jobs", json=TORCHVISION)).items()
    assert pointer == "/backbone_from/torchvision"
    assert "no node has 'resnet50-11ad3fa6.pth', the file of ResNet50_Weights.IMAGENET1K_V2" in said
    broken = faults_of(api.post("/jobs", json={**FILE, "k": -1}))
    assert set(broken) == {"/k", "/backbone_from/file"}
    of_experiment = faults_of(api.post("/experiments", json={"name": "e", "jobs": {"judged": FILE}}))
    assert set(of_experiment) == {"/jobs/judged/backbone_from/file"}


def test_where_no_node_has_a_folder_that_is_said(api: httpx.Client, has: Callable[..., None]) -> None:
    has("host", folder=False)
    said = faults_of(api.post("/jobs", json=FILE))["/backbone_from/file"]
    assert "no node has a folder of backbones, and so none has 'published/resnet50.pth'" in said


def test_the_nodes_are_asked_once_for_all_jobs_of_an_experiment(database: Settings, has: Callable[..., None]) -> None:
    has("host", "published/resnet50.pth", "resnet50-11ad3fa6.pth")
    app = create_app(database)
    asked: list[str] = []
    event.listen(app.state.engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    jobs = {"a": FILE, "b": {**FILE, "k": 5}, "c": TORCHVISION}
    with httpx.Client(transport=InProcess(app), base_url="http://barlow/api/v1") as client:
        answer = client.post("/experiments", json={"name": "e", "jobs": jobs})
    app.state.parts.close()
    app.state.engine.dispose()
    assert answer.status_code == 201, answer.text
    assert sum("nodes.backbones" in statement for statement in asked) == 1


def test_other_sources_ask_for_no_file(api: httpx.Client, has: Callable[..., None]) -> None:
    has("host", folder=False)
    assert api.post(PLAN, json={**KNN, "backbone_from": {"pixels": True}}).status_code == 200
