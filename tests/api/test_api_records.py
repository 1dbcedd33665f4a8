"""Metrics, correlation records, checkpoints: paged, served as files, and never from outside the run directory."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_kit import PRETRAIN
from sqlalchemy.orm import Session

from service.api.pages import write_token
from service.database.tables import Checkpoint, Correlation, Experiment, Image, Job, Metric, Watermark
from service.recording import HOME, MLFLOW, RUN_ID
from service.settings import Settings

NOW = datetime.now(UTC)


@pytest.fixture
def job(api: httpx.Client) -> dict[str, Any]:
    made: dict[str, Any] = api.post("/jobs", json={**PRETRAIN, "name": "recorded"}).json()
    return made


@pytest.fixture
def folder(database: Settings, job: dict[str, Any]) -> Path:
    made = database.runs_dir / job["id"] / "attempts" / "0001"
    made.mkdir(parents=True)
    return made


def test_metrics_are_paged_and_filtered(api: httpx.Client, session: Session, job: dict[str, Any]) -> None:
    for key in ("loss", "effective_rank"):
        session.add_all(
            Metric(job_id=uuid.UUID(job["id"]), key=key, step=step, value=step / 2, at=NOW, attempt=1)
            for step in range(1, 1251)
        )
    session.commit()
    first = api.get(f"/jobs/{job['id']}/metrics").json()
    assert len(first["items"]) == 1000
    seen = first["items"]
    token = first["next_page_token"]
    while token:
        page = api.get(f"/jobs/{job['id']}/metrics", params={"page_token": token}).json()
        seen += page["items"]
        token = page["next_page_token"]
    assert [(p["key"], p["step"]) for p in seen] == [
        (key, step) for key in ("effective_rank", "loss") for step in range(1, 1251)
    ]
    half = write_token("\ud800", 1)
    assert api.get(f"/jobs/{job['id']}/metrics", params={"page_token": half}).status_code == 422
    assert api.get(f"/jobs/{job['id']}/images", params={"page_token": half}).status_code == 422
    late = api.get(f"/jobs/{job['id']}/metrics", params={"key": "loss", "from_step": 1249}).json()["items"]
    assert [(p["step"], p["value"]) for p in late] == [(1249, 624.5), (1250, 625.0)]
    assert api.get(f"/jobs/{job['id']}/metrics?limit=10001").status_code == 422
    newest = api.get(f"/jobs/{job['id']}").json()["last_metrics"]
    assert newest == {key: {"step": 1250, "value": 625.0} for key in ("loss", "effective_rank")}


def test_a_correlation_record_is_served_as_picture_and_arrays(
    api: httpx.Client, session: Session, job: dict[str, Any], folder: Path
) -> None:
    (folder / "correlation").mkdir()
    (folder / "correlation" / "step-00000005.png").write_bytes(b"\x89PNG picture")
    (folder / "correlation" / "step-00000005.npz").write_bytes(b"PK arrays")
    name = "attempts/0001/correlation/step-00000005"
    session.add(
        Correlation(
            job_id=uuid.UUID(job["id"]), step=5, epoch=1, dim=64, summary={"diagonal_mean": 0.9}, at=NOW, attempt=1,
            file=f"{name}.npz", image=f"{name}.png",
        )
    )  # fmt: skip
    session.commit()
    [record] = api.get(f"/jobs/{job['id']}/correlations").json()["items"]
    assert (record["step"], record["dim"], record["summary"]) == (5, 64, {"diagonal_mean": 0.9})
    picture = api.get(f"http://barlow{record['links']['png']}")
    assert (picture.content, picture.headers["content-type"]) == (b"\x89PNG picture", "image/png")
    assert api.get(f"http://barlow{record['links']['npz']}").content == b"PK arrays"
    for absent in ("6.png", "x.png", "5.gif", f"{2**64}.npz"):
        assert api.get(f"/jobs/{job['id']}/correlations/{absent}").status_code == 404


def test_every_picture_is_listed_and_served(
    api: httpx.Client, session: Session, job: dict[str, Any], folder: Path
) -> None:
    own = uuid.UUID(job["id"])
    for name in ("views", "heatmap-5", "heatmap-10", "detections-7"):
        (folder / f"{name}.png").write_bytes(f"picture {name}".encode())
    for step in (5, 10):
        facts = {"epoch": 1, "dim": 2, "summary": {}, "at": NOW, "attempt": 1, "file": f"heatmap-{step}.npz"}
        session.add(Correlation(job_id=own, step=step, image=f"attempts/0001/heatmap-{step}.png", **facts))
    for key, step, file in (("views", 0, "views"), ("a b?ü", 7, "detections-7")):
        session.add(Image(job_id=own, key=key, step=step, file=f"attempts/0001/{file}.png", at=NOW, attempt=1))
    session.commit()
    seen, token = [], None
    while token is not None or not seen:
        more = {"page_token": token} if token else {}
        page = api.get(f"http://barlow{job['links']['images']}", params={"page_size": 1, **more}).json()
        seen += page["items"]
        token = page["next_page_token"]
    places = [(one["key"], one["step"]) for one in seen]
    assert places == [("a b?ü", 7), ("correlation", 5), ("correlation", 10), ("views", 0)]
    contents = ["detections-7", "heatmap-5", "heatmap-10", "views"]
    for one, content in zip(seen, contents, strict=True):
        answer = api.get(f"http://barlow{one['links']['png']}")
        assert (answer.text, answer.headers["content-type"]) == (f"picture {content}", "image/png")
    listed = api.get(f"/jobs/{own}/images?key=views&key=correlation").json()["items"]
    assert [one["step"] for one in listed] == [5, 10, 0]
    for absent in ("views/1.png", "correlation/6.png", "correlation/x.png", "other/0.png", f"views/{2**64}.png"):
        assert api.get(f"/jobs/{own}/images/{absent}").status_code == 404


@pytest.mark.parametrize("trick", ["../../secret", "/etc/passwd", "attempts/0001/link", "../{other}/secret", "", "."])
def test_no_row_leads_out_of_its_run_directory(
    api: httpx.Client, session: Session, database: Settings, job: dict[str, Any], folder: Path, trick: str
) -> None:
    other = database.runs_dir / str(uuid.uuid4())
    other.mkdir()
    for secret in (database.runs_dir.parent / "secret", database.runs_dir / "secret", other / "secret"):
        secret.write_text("not yours")
    os.symlink(database.runs_dir / "secret", folder / "link")
    uri = trick.format(other=other.name)
    session.add(
        Correlation(
            job_id=uuid.UUID(job["id"]), step=1, epoch=None, dim=2, summary={}, at=NOW, attempt=1, file=uri, image=uri
        )
    )
    session.add(
        Checkpoint(
            job_id=uuid.UUID(job["id"]), attempt=1, step=1, kind="last", uri=uri, sha256="00", bytes=1, created_at=NOW
        )
    )
    session.commit()
    [checkpoint] = api.get(f"/jobs/{job['id']}/checkpoints").json()["items"]
    for path in (
        f"/jobs/{job['id']}/correlations/1.png",
        f"/jobs/{job['id']}/correlations/1.npz",
        f"/jobs/{job['id']}/images/correlation/1.png",
        f"/jobs/{job['id']}/checkpoints/{checkpoint['id']}/download",
    ):
        response = api.get(path)
        assert response.status_code == 404
        assert "not yours" not in response.text
        assert str(database.runs_dir) not in response.text


def test_checkpoints_are_listed_and_downloaded(
    api: httpx.Client, session: Session, job: dict[str, Any], folder: Path
) -> None:
    contents = {"last": b"state" * 1000, "backbone": b"weights" * 1000}
    files = {"last": folder / "checkpoints" / "step-00000009" / "state.pt",
             "backbone": folder.parent.parent / "backbone" / "model.safetensors"}  # fmt: skip
    for kind, file in files.items():
        file.parent.mkdir(parents=True)
        file.write_bytes(contents[kind])
        session.add(
            Checkpoint(
                job_id=uuid.UUID(job["id"]), attempt=1, step=9, epoch=1, kind=kind,
                uri=str(file.parent.relative_to(folder.parent.parent)),
                sha256=hashlib.sha256(contents[kind]).hexdigest(), bytes=len(contents[kind]), created_at=NOW,
            )
        )  # fmt: skip
    gone = Checkpoint(
        job_id=uuid.UUID(job["id"]), attempt=1, step=3, kind="last", uri="attempts/0001/checkpoints/step-00000003",
        sha256="00", bytes=1, score=2.5, created_at=NOW, deleted_at=NOW,
    )  # fmt: skip
    session.add(gone)
    session.commit()
    listed = {(c["kind"], c["step"]): c for c in api.get(f"/jobs/{job['id']}/checkpoints").json()["items"]}
    for kind, content in contents.items():
        link = f"http://barlow{listed[kind, 9]['download']}"
        whole = api.get(link)
        assert hashlib.sha256(whole.content).hexdigest() == listed[kind, 9]["sha256"]
        assert api.get(link, headers={"Range": "bytes=10-19"}).content == content[10:20]
    assert listed["last", 3]["download"] is None
    assert (listed["last", 3]["score"], listed["last", 9]["score"]) == (2.5, None)
    deleted = api.get(f"/jobs/{job['id']}/checkpoints/{gone.id}/download")
    assert (deleted.status_code, deleted.json()["type"]) == (410, "/problems/deleted")
    other = api.post("/jobs", json=PRETRAIN).json()
    assert api.get(f"/jobs/{other['id']}/checkpoints/{gone.id}/download").status_code == 404


def test_the_log_of_a_job_is_that_of_its_attempts_one_after_another(
    api: httpx.Client, job: dict[str, Any], folder: Path
) -> None:
    empty = api.get(f"/jobs/{job['id']}/logs")
    assert (empty.status_code, empty.text, empty.headers["Barlow-Log-Size"]) == (200, "", "0")
    (folder / "trainer.log").write_text("[0] erster Versuch: λ\n")
    second = folder.parent / "0002"
    second.mkdir()
    (second / "trainer.log").write_text("[0] second\n[1] second\n")
    whole = api.get(f"/jobs/{job['id']}/logs")
    assert whole.text == "[0] erster Versuch: λ\n[0] second\n[1] second\n"
    assert whole.headers["content-type"].startswith("text/plain")
    raw = whole.content
    for start in (0, 5, 22, 23, 24, 40, len(raw), len(raw) + 9):
        piece = api.get(f"/jobs/{job['id']}/logs", params={"offset": start, "limit": 7})
        assert piece.content == raw[start : start + 7]
        assert int(piece.headers["Barlow-Next-Offset"]) == start + len(piece.content)
    assert api.get(f"/jobs/{job['id']}/logs?attempt=2").text == "[0] second\n[1] second\n"
    assert api.get(f"/jobs/{job['id']}/logs?attempt=3").text == ""
    assert api.get(f"/jobs/{job['id']}/logs?attempt=0").status_code == 422


def test_recording_and_results_are_shown(api: httpx.Client, session: Session, job: dict[str, Any]) -> None:
    session.add(Watermark(job_id=uuid.UUID(job["id"]), target="postgres", position={}, complete=True))
    row = session.get(Job, uuid.UUID(job["id"]))
    assert row is not None
    row.progress = {"step": 3, "steps": 6, "fraction": 0.5, "done": 3}
    row.error = {"class": "diverged", "message": "loss is not finite", "log_tail": ["[0] nan"], "traceback": None}
    session.commit()
    shown = api.get(f"/jobs/{job['id']}").json()
    assert shown["recording"] == {"postgres": "complete", "mlflow": "off"}
    assert shown["progress"]["fraction"] == 0.5
    assert shown["progress"]["done"] == 3
    assert shown["error"]["log_tail"] == ["[0] nan"]


def test_links_open_mlflow_where_trainings_are_shown(
    session: Session, database: Settings, in_process: Callable[..., Any], job: dict[str, Any]
) -> None:
    row = session.get_one(Job, uuid.UUID(job["id"]))
    row.mlflow_run_id = "abc"
    session.get_one(Experiment, row.experiment_id).mlflow_experiment_id = "5"
    session.commit()
    settings = database.model_copy(update={"mlflow_public_url": "http://mlflow.example/"})
    with in_process(settings) as api:
        run = api.get(f"/jobs/{job['id']}").json()["links"]["mlflow"]
        assert run == "http://mlflow.example/#/experiments/5/runs/abc?workflowType=machine_learning"
        experiment = api.get("/experiments/default").json()["mlflow"]
        assert experiment == "http://mlflow.example/#/experiments/5/runs?workflowType=machine_learning"
        mark = Watermark(job_id=row.id, target=MLFLOW, position={RUN_ID: "abc", HOME: "4"}, complete=True)
        session.add(mark)
        session.commit()
        moved = api.get(f"/jobs/{job['id']}").json()["links"]["mlflow"]
        assert moved == run.replace("/5/", "/4/"), "the experiment that the run is in"
        assert api.post("/entries", params={"job": job["id"]}).json()["url"] == moved
        mark.position = {RUN_ID: "of before", HOME: "4"}
        session.commit()
        assert api.get(f"/jobs/{job['id']}").json()["links"]["mlflow"] == run
