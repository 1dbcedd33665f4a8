"""What an evaluation takes from another job is checked before anything is started."""

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import later_kind
import pytest
from lab import Lab
from sqlalchemy.orm import Session
from worker_host import small_pretraining

from barlow_lab.disk import sha256_of
from barlow_lab.run_folder import run_folder
from barlow_lab.specs import parse_spec
from service.database.tables import Checkpoint, Job
from service.ledger import jobs
from service.ledger.states import AttemptOutcome
from service.settings import Settings
from worker.inputs import BadInput, look_up


def resolve(session: Session, job: Job, settings: Settings) -> dict[str, Any]:
    """What the database says of an attempt's inputs, and then what the files say."""
    return look_up(session, job, settings).resolve()


class Source:
    """A succeeded pretraining with a published backbone and the checkpoints of steps 14 and 21."""

    def __init__(self, settings: Settings) -> None:
        self.lab = Lab(settings)
        self.lab.node()
        self.runs_dir = settings.runs_dir
        self.id = self.post(small_pretraining(), None).id
        self.run = run_folder(self.runs_dir, self.id)
        self.lab.run(self.id, AttemptOutcome.OK)
        files = {("backbone", 21, "backbone"): "model.safetensors"}
        files |= {("last", step, f"attempts/0001/checkpoints/step-{step:08d}"): "state.pt" for step in (14, 21)}
        with self.lab.sessions.begin() as session:
            for (kind, step, uri), name in files.items():
                file = self.run / uri / name
                file.parent.mkdir(parents=True)
                file.write_bytes(f"{kind} {step}".encode())
                row = {"attempt": 1, "epoch": None, "bytes": 1, "created_at": datetime.now(UTC)}
                session.add(Checkpoint(job_id=self.id, step=step, kind=kind, uri=uri, sha256=sha256_of(file), **row))
        (self.run / "backbone" / "config.json").write_text(json.dumps({"sha256": "of the tensors"}))

    def post(self, spec: dict, source: uuid.UUID | None) -> Job:
        with self.lab.sessions.begin() as session:
            experiment = jobs.ensure_experiment(session, "lab")
            facts = {"name": None, "after": [], "source_job_id": source, "actor": "test", "user": None}
            return jobs.submit(session, experiment_id=experiment.id, spec=parse_spec(spec), **facts)

    def resolve(self, select: str, kind: str = "knn") -> dict:
        backbone_from = {"job": "pretrain", "select": select}
        job = self.post({"kind": kind, "data": {"name": "digits"}, "backbone_from": backbone_from}, self.id)
        with self.lab.sessions() as session:
            return resolve(session, job, self.lab.settings)


@pytest.fixture
def source(database: Settings) -> Iterator[Source]:
    source = Source(database)
    yield source
    source.lab.engine.dispose()


def test_last_is_the_published_backbone_and_a_step_is_its_checkpoint(source: Source) -> None:
    data = {"digits": None}
    published = {"path": str(source.run / "backbone"), "sha256": "of the tensors"}
    assert source.resolve("last") == {"backbone": published, "data": data}
    folder = source.run / "attempts/0001/checkpoints/step-00000014"
    checkpoint = {"checkpoint": str(folder), "sha256": sha256_of(folder / "state.pt")}
    assert source.resolve("step 14") == {"backbone": checkpoint, "data": data}


def test_a_kind_of_a_later_version_is_asked_for_its_source(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    later_kind.add(monkeypatch)
    for select in ("last", "step 14"):
        assert source.resolve(select, "continued") == source.resolve(select)


@pytest.mark.parametrize("select", ["last", "step 21"])
@pytest.mark.parametrize(("damage", "said"), [("deleted", "is missing"), ("changed", "is damaged")])
def test_what_is_not_what_was_recorded_is_refused_with_a_remedy(
    source: Source, select: str, damage: str, said: str
) -> None:
    file: Path = source.run / ("backbone/model.safetensors" if select == "last" else "")
    if select != "last":
        file = source.run / "attempts/0001/checkpoints/step-00000021/state.pt"
    file.unlink() if damage == "deleted" else file.write_bytes(b"backbone 2?")
    with pytest.raises(BadInput, match=f"{said}.*; (run that job again|select `last`)"):
        source.resolve(select)


def test_a_step_without_a_checkpoint_names_those_that_are_kept(source: Source) -> None:
    with pytest.raises(BadInput, match=r"no checkpoint of step 3; kept: 14, 21\. Select one of them or `last`"):
        source.resolve("step 3")


def _checkpoint(lab: Lab, job_id: uuid.UUID, attempt: int, step: int, manifest: str | None = None) -> dict[str, str]:
    folder = run_folder(lab.settings.runs_dir, job_id) / f"attempts/{attempt:04d}/checkpoints/step-{step:08d}"
    folder.mkdir(parents=True)
    sha256 = f"of {step} in attempt {attempt}"
    (folder / "manifest.json").write_text(manifest or json.dumps({"step": step, "sha256": sha256}))
    return {"path": str(folder), "sha256": sha256}


def test_a_retried_pretraining_is_given_all_former_checkpoints_newest_step_first(lab: Lab) -> None:
    lab.node()
    first = lab.submit("first", max_restarts=0)
    lab.run(first, AttemptOutcome.CRASHED)
    second = lab.retry(first)
    lab.run(second, AttemptOutcome.DIVERGED)
    third = lab.retry(second)
    found = [
        _checkpoint(lab, first, 2, 40),
        _checkpoint(lab, second, 1, 30),
        _checkpoint(lab, first, 2, 30),
        _checkpoint(lab, first, 1, 30),
        _checkpoint(lab, first, 1, 7),
    ]
    for step, torn in enumerate(["{", "[]", "{}", '{"step": "?", "sha256": "a"}'], start=50):
        _checkpoint(lab, second, 1, step, torn)
    (run_folder(lab.settings.runs_dir, second) / "attempts/0001/checkpoints/.step-00000060.tmp").mkdir()
    (run_folder(lab.settings.runs_dir, second) / "attempts/0001/checkpoints/step-00000070").mkdir()

    aside = Path(_checkpoint(lab, second, 1, 80)["path"])
    aside.rename(aside.with_name(f"{aside.name}.bad"))

    def resume(job_id: uuid.UUID) -> object:
        with lab.sessions() as session:
            return resolve(session, session.get_one(Job, job_id), lab.settings).get("resume")

    assert resume(third) == found
    assert resume(second) == [found[0], *found[2:]]
    assert resume(first) is None


@pytest.mark.parametrize("kind", ["semi_supervised", "linear", "detection"])
def test_a_retried_evaluation_that_trains_is_given_the_former_checkpoints(source: Source, kind: str) -> None:
    labels = {"labels": {"percent": 10}} if kind == "semi_supervised" else {}
    job_id = source.post({"kind": kind, "data": "digits", "backbone_from": {"job": "pretrain"}, **labels}, source.id).id
    left = _checkpoint(source.lab, job_id, 1, 7)
    source.lab.cancel(job_id)
    retried = source.lab.retry(job_id)
    with source.lab.sessions() as session:
        assert resolve(session, session.get_one(Job, retried), source.lab.settings)["resume"] == [left]


@pytest.mark.parametrize("kind", ["knn", "svm", "linear"])
def test_a_retried_evaluation_of_frozen_features_starts_over(source: Source, kind: str) -> None:
    protocol = {"protocol": "cached-features"} if kind == "linear" else {}
    spec = {"kind": kind, "data": {"name": "digits"}, "backbone_from": {"job": "pretrain"}, **protocol}
    job_id = source.post(spec, source.id).id
    source.lab.cancel(job_id)
    retried = source.lab.retry(job_id)
    with source.lab.sessions() as session:
        assert "resume" not in resolve(session, session.get_one(Job, retried), source.lab.settings)


def test_a_backbone_of_others_is_looked_for_in_this_hosts_folder(source: Source, tmp_path: Path) -> None:
    (tmp_path / "resnet50.pth").touch()
    settings = source.lab.settings.model_copy(update={"backbones_dir": tmp_path})
    judging = {"kind": "knn", "data": {"name": "digits"}, "backbone": {"name": "resnet50"}, "images": {"size": 32}}
    there = source.post({**judging, "backbone_from": {"file": "resnet50.pth"}}, None).id
    absent = source.post({**judging, "backbone_from": {"file": "resnet51.pth"}}, None).id
    with source.lab.sessions() as session:
        found = resolve(session, session.get_one(Job, there), settings)["backbone"]
        assert found == {"file": str(tmp_path / "resnet50.pth"), "root": str(tmp_path)}
        with pytest.raises(BadInput, match=r"did you mean resnet50.pth"):
            resolve(session, session.get_one(Job, absent), settings)
        with pytest.raises(BadInput, match="BARLOW_BACKBONES_DIR, which is not set"):
            resolve(session, session.get_one(Job, there), source.lab.settings)
