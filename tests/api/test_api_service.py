"""The service around the jobs: health, readiness, figures, problems, the OpenAPI document, nodes, data sets."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from api_kit import PRETRAIN
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy.orm import Session

from barlow_lab.specs.kinds import KINDS
from service.api import problems
from service.api.app import create_app
from service.api.idempotency import FORGET_AT_ONE_IN, _number
from service.database.tables import IdempotencyKey, Node, SchedulerSeen
from service.settings import Settings

ROOT = "http://barlow"


def test_readiness_names_each_check(api: httpx.Client, session: Session) -> None:
    assert api.get(f"{ROOT}/healthz").json() == {"status": "ok"}
    never = api.get(f"{ROOT}/readyz")
    assert never.status_code == 503
    assert {name: check["ok"] for name, check in never.json()["checks"].items()} == {
        "database": True, "migrations": True, "scheduler": False, "broker": False,
    }  # fmt: skip
    seen = SchedulerSeen(id=1, instance=uuid.uuid4(), seen_at=datetime.now(UTC))
    session.add(seen)
    session.commit()
    ready = api.get(f"{ROOT}/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (200, True)
    seen.seen_at = datetime.now(UTC) - timedelta(minutes=1)
    session.commit()
    assert api.get(f"{ROOT}/readyz").json()["checks"]["scheduler"]["ok"] is False


def test_pending_migrations_and_no_database_are_told(database: Settings, in_process: Callable[..., Any]) -> None:
    from service.database.engine import make_engine

    engine = make_engine(database.as_owner())
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE alembic_version")
    engine.dispose()
    with in_process(database) as client:
        pending = client.get("http://barlow/readyz")
        assert pending.status_code == 503
        assert "python -m service.database upgrade" in pending.json()["checks"]["migrations"]["detail"]
    nowhere = database.model_copy(update={"database_url": SecretStr("postgresql://u:secret@127.0.0.1:1/x")})
    with in_process(nowhere) as client:
        assert client.get("http://barlow/healthz").status_code == 200
        away = client.get("http://barlow/readyz")
        assert (away.status_code, away.json()["checks"]["database"]["ok"]) == (503, False)
        refused = client.get("/jobs")
        assert (refused.status_code, refused.json()["type"]) == (503, "/problems/unavailable")
        assert refused.headers["Retry-After"] == "2"
        assert "secret" not in away.text + refused.text


def test_the_bare_address_leads_to_the_documentation(api: httpx.Client) -> None:
    answer = api.get(f"{ROOT}/")
    assert (answer.status_code, answer.headers["Location"]) == (307, "/docs")


def test_keys_are_forgotten_after_seven_days(api: httpx.Client, session: Session) -> None:
    def submit(key: str) -> tuple[str, bool]:
        answer = api.post("/jobs", json=PRETRAIN, headers={"Idempotency-Key": key})
        return answer.json()["id"], "Idempotency-Replayed" in answer.headers

    # Keys with the number that has those that are too old deleted.
    sweeps = [key for key in map(str, range(1000)) if _number("anonymous", "POST /jobs", key) % FORGET_AT_ONE_IN == 0]
    made, _ = submit("old")
    kept, _ = submit("kept")
    for key, days in (("old", 7.1), ("kept", 6.9)):
        session.get_one(IdempotencyKey, ("anonymous", "POST /jobs", key)).created_at -= timedelta(days=days)
    session.commit()
    assert submit("old") == (made, True)
    submit(sweeps[0])
    assert submit("kept") == (kept, True)
    again, replayed = submit("old")
    assert (again != made, replayed) == (True, False)


def test_figures_for_prometheus(api: httpx.Client, add_node: Callable[..., None]) -> None:
    add_node("host", 3)
    job = api.post("/jobs", json=PRETRAIN).json()
    api.get(f"/jobs/{job['id']}")
    api.get("/jobs/unknown")
    api.get(f"{ROOT}/no/such/path")
    lines = api.get(f"{ROOT}/metrics").text.splitlines()
    assert 'barlow_jobs{state="queued"} 1.0' in lines
    assert 'barlow_jobs{state="running"} 0.0' in lines
    assert 'barlow_slots{use="free"} 3.0' in lines
    counts = {line.rsplit(" ", 1)[0]: line.rsplit(" ", 1)[1] for line in lines if "request_seconds_count" in line}
    shown = [name for name in counts if 'route="/jobs/{job_id}"' in name]
    assert len(shown) == 2
    assert not any(job["id"] in name for name in counts)


def test_every_problem_type_has_its_page(api: httpx.Client) -> None:
    everything = api.get(f"{ROOT}/problems").text
    for code in problems.KINDS:
        assert code in everything
        assert problems.KINDS[code].title in api.get(f"{ROOT}/problems/{code}").text
    assert api.get(f"{ROOT}/problems/nonsense").status_code == 404


def test_unknown_routes_and_methods_are_problems(api: httpx.Client) -> None:
    lost = api.get("/jbos")
    assert (lost.status_code, lost.json()["type"]) == (404, "/problems/not-found")
    wrong = api.delete("/jobs")
    assert (wrong.status_code, wrong.json()["type"]) == (405, "/problems/method-not-allowed")
    assert wrong.headers["Allow"] == "GET, POST"
    for path in ("/jobs?experiment=%00", "/jobs/%00", "/jobs?label=a=%00b"):
        assert api.get(path).status_code == 400


def test_nodes_and_data_sets(api: httpx.Client, session: Session, add_node: Callable[..., None]) -> None:
    flowers = {"splits": {"train": 500, "test": 100}, "classes": 5, "image_size": None, "description": "flowers"}
    add_node("host", 2, data_sets={"flowers": flowers})
    add_node("gone", 1)
    node = session.get(Node, "gone")
    assert node is not None
    node.seen_at = datetime.now(UTC) - timedelta(hours=1)
    session.commit()
    nodes = {node["name"]: node for node in api.get("/nodes").json()["items"]}
    assert nodes["host"]["live"]
    assert not nodes["gone"]["live"]
    assert [(slot["index"], slot["job"]) for slot in nodes["host"]["slots"]] == [(0, None), (1, None)]
    sets = {entry["name"]: entry for entry in api.get("/datasets").json()["items"]}
    assert sets["textures"]["built_in"]
    facts = {"annotations": ["class"], "lists": [], "unlabelled": [], "checked": True, "faults": {}, "notes": {}}
    kinds = ["pretrain", "closed_form", "invariance", "knn", "linear", "semi_supervised", "svm"]
    assert sets["flowers"] == {
        "name": "flowers", **flowers, **facts, "kinds": kinds, "built_in": False, "nodes": ["host"],
    }  # fmt: skip


def test_the_openapi_document_is_whole(api: httpx.Client) -> None:
    document = api.get(f"{ROOT}/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    operations = [op for path in document["paths"].values() for op in path.values()]
    assert [op["operationId"] for op in operations if len(op["tags"]) != 1] == []
    ids = [op["operationId"] for op in operations]
    assert len(ids) == len(set(ids))
    assert {"submit_job", "list_jobs", "get_job", "cancel_job", "submit_experiment", "read_logs"} < set(ids)
    submit = document["paths"]["/api/v1/jobs"]["post"]
    assert set(submit["requestBody"]["content"]["application/json"]["examples"]) == set(KINDS)
    for status in ("400", "409", "413", "415", "422"):
        assert problems.MEDIA_TYPE in submit["responses"][status]["content"]
    schemas = document["components"]["schemas"]
    text = json.dumps(document)
    for reference in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert reference in schemas, reference
    assert "HTTPValidationError" not in {r for op in operations for r in op["responses"]}


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_body_is_a_server_error(api: httpx.Client, data: st.DataObject) -> None:
    field = data.draw(st.sampled_from([*PRETRAIN, "run", "resources", "optimizer", "objective", "seed", "name"]))
    spec = {**PRETRAIN, field: data.draw(JSON_VALUES)}
    path, body = data.draw(
        st.sampled_from([("/jobs?validate_only=true", spec), ("/experiments", {"name": "x", "jobs": spec}),
                         ("/experiments", {"name": "x", "jobs": {"a": spec, "b": spec[field]}})])
    )  # fmt: skip
    answer = api.post(path, content=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
    assert answer.status_code < 500, (body, answer.text)


def test_a_bug_is_a_problem_without_its_inside(database: Settings) -> None:
    import asyncio

    app = create_app(database)

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("the inside")

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=ROOT) as client:
            return await client.get("/broken")

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.json()["type"]) == (500, "/problems/internal")
    assert "inside" not in answer.text


def test_methods_that_somebody_makes_up_are_counted_as_one(api: httpx.Client) -> None:
    for number in range(5):
        assert api.request(f"MADE-UP{number}", f"{ROOT}/healthz").status_code == 405
    said = api.get(f"{ROOT}/metrics").text
    assert "MADE-UP" not in said
    assert 'barlow_http_request_seconds_count{method="other",route="/healthz",status="405"} 5.0' in said
