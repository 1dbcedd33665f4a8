"""schemathesis over the OpenAPI document, against a real server: no 5xx, and every answer as documented."""

from __future__ import annotations

import os
import uuid
import zlib
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from lab import Lab
from schemathesis.config import SchemathesisConfig
from sqlalchemy import func

from service.api.app import create_app
from service.database.tables import Checkpoint, Correlation, Metric, SchedulerSeen
from service.ledger.states import AttemptOutcome
from service.settings import Settings

EXAMPLES = int(os.environ.get("BARLOW_SCHEMA_EXAMPLES", "8"))
"""Generated requests of each kind per operation."""

KNOWN: dict[str, list[Any]] = {}
"""What there is, by the name of the path parameter."""


@pytest.fixture(scope="module")
def address(server: str, served: Settings) -> str:
    """The server, with jobs in every state, their records and a node with a slot in quarantine."""
    lab = Lab(served)
    lab.node(slots=2)
    done, broken = lab.submit("done"), lab.submit("broken")
    lab.run(done, AttemptOutcome.OK, result={"loss": 1.0})
    lab.run(broken, AttemptOutcome.DIVERGED, "not finite")
    lost = lab.submit("lost")
    lab.expire(lab.start(lost))
    lab.reap()
    lab.cancel(lost)
    running, stopping = lab.submit("running"), lab.submit("queued")
    lab.start(running)
    paused, cancelled = lab.submit("paused"), lab.submit("cancelled")
    waiting = lab.submit("waiting", after=[running])
    lab.pause(paused)
    lab.cancel(cancelled)
    jobs = [done, broken, lost, running, stopping, paused, cancelled, waiting]
    folder = served.runs_dir / str(done)
    (folder / "attempts" / "0001").mkdir(parents=True)
    (folder / "attempts" / "0001" / "trainer.log").write_text("[0] step 1\n[0] λ\n")
    (folder / "c.npz").write_bytes(b"arrays")
    (folder / "c.png").write_bytes(b"picture")
    (folder / "state.pt").write_bytes(b"state")
    with lab.sessions.begin() as session:
        session.add(SchedulerSeen(id=1, instance=uuid.uuid4(), seen_at=func.now()))
        for step in (1, 2):
            session.add(Metric(job_id=done, key="loss", step=step, value=1.5, at=func.now(), attempt=1))
        facts = {"dim": 4, "summary": {"rms": 0.1}, "file": "c.npz", "image": "c.png", "at": func.now(), "attempt": 1}
        session.add(Correlation(job_id=done, step=1, epoch=None, **facts))
        facts = {"attempt": 1, "uri": "state.pt", "sha256": "00" * 32, "bytes": 5, "created_at": func.now()}
        kept = Checkpoint(job_id=done, step=1, kind="last", **facts)
        gone = Checkpoint(job_id=done, step=2, kind="last", deleted_at=func.now(), **facts)
        session.add_all([kept, gone])
        session.flush()
        checkpoints = [kept.id, gone.id]
    lab.engine.dispose()
    KNOWN.update(
        {
            "job_id": [str(job) for job in jobs],
            "experiment_id": ["lab"],
            "checkpoint_id": checkpoints,
            "step": [1],
            "node": ["gpu-1"],
            "index": [0, 1],
        }
    )
    return server


# The document needs no database, so it is there when pytest collects the operations.
CONFIG = SchemathesisConfig.from_dict({"checks": {"positive_data_acceptance": {"enabled": False}}})
DOCUMENT = create_app(Settings(database_url="postgresql://nobody@127.0.0.1:1/none")).openapi()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT, config=CONFIG)


TEXT_LISTS = {
    parameter["name"]
    for path in DOCUMENT["paths"].values()
    for operation in path.values()
    for parameter in operation.get("parameters", ())
    for schema in parameter["schema"].get("anyOf", [parameter["schema"]])
    if parameter["in"] == "query" and schema.get("type") == "array" and schema["items"] == {"type": "string"}
}
"""Parameters that take any texts, as `?key=loss&key=grad_norm`."""


@SCHEMA.hook
def filter_query(context: Any, query: dict[str, Any]) -> bool:
    """Whatever is generated in the place of a list of texts is one in a query, where all is text: none is wrong."""
    return not any(name in TEXT_LISTS and not isinstance(value, list | None) for name, value in (query or {}).items())


@SCHEMA.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any]) -> dict[str, Any]:
    """Name what there is in most requests, and keep what was generated in the rest."""
    out = dict(path_parameters or {})
    for name, value in out.items():
        there = KNOWN.get(name, [])
        chosen = zlib.crc32(repr(value).encode()) % (len(there) + 2)
        if chosen < len(there):
            out[name] = there[chosen]
    return out


def _test_of(label: str) -> Any:
    """A test of one operation. Those that schemathesis makes of a whole document share one node id under pytest 9.2,
    and of tests with one id a distributed run runs the first alone."""

    @SCHEMA.include(name=label).parametrize()
    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )  # fmt: skip
    def test_every_answer_is_as_documented(case: Any, address: str) -> None:
        if case.operation.path.endswith(("/events", "/logs")):
            case.query = {**(case.query or {}), "follow": "false"}
        case.call_and_validate(base_url=address, timeout=20)

    return test_every_answer_is_as_documented


for each in SCHEMA.get_all_operations():
    globals()[f"test_every_answer_is_as_documented_by[{each.ok().label}]"] = _test_of(each.ok().label)
