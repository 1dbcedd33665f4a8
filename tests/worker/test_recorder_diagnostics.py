"""A diagnostic that a stranger has written: its picture and its number reach database, MLflow and API by themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import runs
from api_kit import InProcess
from journals import RecordedJob
from lab import Lab
from looks import FirstFilters
from recorded import both, export, images, in_mlflow, record

from service.api.app import create_app
from service.local.servers import Mlflow
from service.settings import Settings
from trainer.diagnostics import listed
from trainer.pretraining import pretrain
from worker.recorder.mlflow_run import make_client


def test_what_one_more_diagnostic_records_is_listed_served_and_in_mlflow(
    lab: Lab, database: Settings, mlflow: Mlflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listed, "DIAGNOSTICS", [*listed.DIAGNOSTICS, FirstFilters])
    spec = runs.spec(epochs=2)
    job = RecordedJob(lab, database, spec=spec.resolved())
    place = {"run_folder": job.run, "attempt_folder": job.folder, "journal": job.journal}
    assert pretrain(spec, replace(runs.context(tmp_path), **place)).outcome == "ok"
    job.succeed()
    record(job)

    client = make_client(mlflow.url, mlflow.token)
    export(job, client)
    drawn = both("first-filters", 5, 10)
    assert images(job, client) & drawn == drawn
    assert [step for step, *_ in in_mlflow(job, client)["first_filters_size"]] == [5, 10]

    app = create_app(database)
    with httpx.Client(transport=InProcess(app), base_url="http://barlow") as api:
        listing = api.get(f"/api/v1/jobs/{job.id}/images", params={"key": "first-filters"}).json()["items"]
        assert [one["step"] for one in listing] == [5, 10]
        served = [api.get(one["links"]["png"]).content for one in listing]
    app.state.parts.close()
    app.state.engine.dispose()
    assert served == [(job.folder / f"first-filters/step-{step:08d}.png").read_bytes() for step in (5, 10)]
