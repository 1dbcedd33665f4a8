"""The run database: every table, typed. The rows are the truth; what is in Redis or MLflow can be rebuilt.

Only service.ledger changes a job's or an attempt's state. A table changes only with its migration in the same commit.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    MetaData,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Base of all tables; constraint names are fixed so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        str: Text,
        int: BigInteger,
        float: Double,
        list[uuid.UUID]: ARRAY(Uuid),
    }


class Experiment(Base):
    """A named group of jobs: a pipeline, a sweep, repeated seeds. One MLflow experiment.

    One that `varies` has a run of its own there, above those of its jobs; `mlflow_told`: what that one is known to say.
    """

    __tablename__ = "experiments"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=func.uuidv7())
    name: Mapped[str] = mapped_column(unique=True)
    spec: Mapped[dict[str, Any] | None]
    varies: Mapped[bool] = mapped_column(server_default=text("false"))  # seeds, a grid or lists make several of one job
    mlflow_experiment_id: Mapped[str | None]
    mlflow_run_id: Mapped[str | None]
    mlflow_told: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("ix_experiments_varies", "id", postgresql_where=text("varies")),)


class Job(Base):
    """One job. `reason_code` and `reason` say why it is not running; `event_seq` numbers its events."""

    __tablename__ = "jobs"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=func.uuidv7())
    experiment_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("experiments.id"), index=True)
    retry_of: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    source_job_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    kind: Mapped[str]
    name: Mapped[str]
    labels: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    spec: Mapped[dict[str, Any]]
    spec_digest: Mapped[str]
    state: Mapped[str]
    reason_code: Mapped[str | None]
    reason: Mapped[dict[str, Any] | None]
    priority: Mapped[int]
    order_key: Mapped[float]  # smaller starts first: seconds of queueing less an allowance per priority
    slots: Mapped[int]
    nodes: Mapped[int]
    not_before: Mapped[datetime | None]
    after: Mapped[list[uuid.UUID]] = mapped_column(server_default=text("'{}'"))
    restarts: Mapped[int] = mapped_column(server_default=text("0"))  # counted retries, against run.max_restarts
    # The node whose slots are kept for this queued job; `preempting`: others were told to make room for it there.
    reserved_node: Mapped[str | None] = mapped_column(ForeignKey("nodes.name"))
    preempting: Mapped[bool] = mapped_column(server_default=text("false"))
    # What the scheduler needs of the spec, so that a tick reads no spec.
    data_set: Mapped[str] = mapped_column(Computed("spec -> 'data' ->> 'name'", persisted=True))
    preemptible: Mapped[bool] = mapped_column(
        Computed("coalesce((spec -> 'run' ->> 'preemptible')::boolean, false)", persisted=True)
    )
    progress: Mapped[dict[str, Any] | None]
    mlflow_run_id: Mapped[str | None]
    user_name: Mapped[str | None]  # whose it is; None: of before there were users, and in the hands of admins
    event_seq: Mapped[int] = mapped_column(server_default=text("0"))
    cancel_requested_at: Mapped[datetime | None]
    pause_requested_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    result: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]

    __table_args__ = (
        CheckConstraint(
            "state IN ('waiting', 'queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')", name="state"
        ),
        UniqueConstraint("experiment_id", "name"),
        Index("ix_jobs_queue", "slots", "order_key", postgresql_where=text("state = 'queued'")),
        Index("ix_jobs_place", "order_key", "id", postgresql_where=text("state = 'queued'")),
        Index("ix_jobs_state", "state", "id"),
        Index("ix_jobs_user", "user_name", "id"),
        Index("ix_jobs_waiting", "id", postgresql_where=text("state = 'waiting'")),
        Index("ix_jobs_reserved", "reserved_node", postgresql_where=text("reserved_node IS NOT NULL")),
        Index("ix_jobs_labels", "labels", postgresql_using="gin"),
    )


class Attempt(Base):
    """One try at a job. `number` rises by one; `token` fences every write that changes state."""

    __tablename__ = "attempts"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=func.uuidv7())
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"))
    number: Mapped[int]
    token: Mapped[uuid.UUID] = mapped_column(server_default=func.gen_random_uuid())
    node: Mapped[str] = mapped_column(ForeignKey("nodes.name"), index=True)
    state: Mapped[str]
    outcome: Mapped[str | None]
    message: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    last_step: Mapped[int | None]
    last_progress_at: Mapped[datetime | None]
    # Told to make room for a job of higher priority.
    preempted_at: Mapped[datetime | None]
    preempted_for: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("jobs.id"))
    placed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("state IN ('placed', 'starting', 'running', 'stopping', 'ended')", name="state"),
        UniqueConstraint("job_id", "number"),
        # Two live attempts of one job cannot exist, whatever the code does.
        Index("uq_attempts_live", "job_id", unique=True, postgresql_where=text("state <> 'ended'")),
    )


NOBODY = uuid.UUID(int=0)
"""The instance of a node whose worker has left: the name is free and nothing is placed there."""


class Node(Base):
    """A GPU host. `instance` is the worker process that holds the name now; a draining one gets nothing placed."""

    __tablename__ = "nodes"
    name: Mapped[str] = mapped_column(primary_key=True)
    instance: Mapped[uuid.UUID]
    versions: Mapped[dict[str, Any]]
    data_sets: Mapped[dict[str, Any]]  # name -> a barlow_lab.specs.catalogue.DataSetEntry
    backbones: Mapped[dict[str, Any] | None]  # a barlow_lab.specs.backbone_files.BackboneFiles; none: not known yet
    cores: Mapped[int]
    memory_bytes: Mapped[int]
    registered_at: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    draining_at: Mapped[datetime | None]


class Slot(Base):
    """One GPU, or one CPU rank; never shared. A retired slot is gone from its host since the last registration."""

    __tablename__ = "slots"
    node: Mapped[str] = mapped_column(ForeignKey("nodes.name"), primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str]
    device_uuid: Mapped[str] = mapped_column("uuid", unique=True)
    memory_bytes: Mapped[int]
    attempt_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("attempts.id"), index=True)
    quarantined_at: Mapped[datetime | None]
    quarantine_reported_at: Mapped[datetime | None]  # a warning was written: it lasts unusually long
    retired_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("kind IN ('cuda', 'cpu')", name="kind"),
        Index("ix_slots_quarantined", "node", "index", postgresql_where=text("quarantined_at IS NOT NULL")),
    )


class Metric(Base):
    """One point of one metric. `attempt` is the attempt whose journal it stands in."""

    __tablename__ = "metrics"
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[float]
    at: Mapped[datetime]
    attempt: Mapped[int]


class Correlation(Base):
    """One cross-correlation record. `file` and `image` are relative to the job's run directory."""

    __tablename__ = "correlations"
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    epoch: Mapped[int | None]
    dim: Mapped[int]
    summary: Mapped[dict[str, Any]]
    file: Mapped[str]
    image: Mapped[str]
    at: Mapped[datetime]
    attempt: Mapped[int]


class Image(Base):
    """A picture other than a correlation heatmap, such as the first batch's views."""

    __tablename__ = "images"
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    file: Mapped[str]
    at: Mapped[datetime]
    attempt: Mapped[int]


class Checkpoint(Base):
    """A checkpoint or the exported backbone. `uri` is relative to the job's run directory.

    `score` is the value of the spec's `run.checkpoint.best_by` at this step. A row with `deleted_at` stands for a
    file that is gone or about to go: the row comes first.
    """

    __tablename__ = "checkpoints"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"))
    attempt: Mapped[int]
    step: Mapped[int]
    epoch: Mapped[int | None]
    kind: Mapped[str]
    uri: Mapped[str]
    sha256: Mapped[str]
    bytes: Mapped[int]
    score: Mapped[float | None]
    created_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("kind IN ('last', 'best', 'milestone', 'backbone')", name="kind"),
        UniqueConstraint("job_id", "attempt", "step", "kind"),
    )


class Watermark(Base):
    """How far a target (`postgres`, `mlflow`) has recorded a job; `complete` once the ended job is all there."""

    __tablename__ = "watermarks"
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    target: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[dict[str, Any]]
    complete: Mapped[bool] = mapped_column(server_default=text("false"))
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("ix_watermarks_incomplete", "job_id", "target", postgresql_where=text("NOT complete")),)


class Event(Base):
    """What happened to a job, append-only; `seq` comes from jobs.event_seq under the row lock, so it has no gaps."""

    __tablename__ = "events"
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    kind: Mapped[str]
    actor: Mapped[str]
    payload: Mapped[dict[str, Any]]


class IdempotencyKey(Base):
    """A submit that was answered: the same key and body gets the same resource again."""

    __tablename__ = "idempotency_keys"
    owner: Mapped[str] = mapped_column(primary_key=True)
    route: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_digest: Mapped[str]
    resource: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Token(Base):
    """An access token of the API, by the hash of its secret, and the user it is for. A revoked one keeps its row, so
    that no other token ever has its name: events and the audit trail say who it was."""

    __tablename__ = "tokens"
    name: Mapped[str] = mapped_column(primary_key=True)
    user_name: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    role: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_by: Mapped[str]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]

    __table_args__ = (CheckConstraint("role IN ('reader', 'submitter', 'admin')", name="role"),)


class BrowserSession(Base):
    """A browser's way into a server beside the API: a code in a link first, then the session that it was redeemed for.

    Code, session and the token that it was asked for with stand here by their hashes. It counts for as long as that
    token does, and no longer than `expires_at`, which is the code's end until it is redeemed.
    """

    __tablename__ = "browser_sessions"
    code_sha256: Mapped[str] = mapped_column(primary_key=True)
    secret_sha256: Mapped[str | None] = mapped_column(unique=True)
    service: Mapped[str]
    path: Mapped[str]  # where the link leads
    token_sha256: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint("service IN ('mlflow')", name="service"),
        Index("ix_browser_sessions_token", "token_sha256", "created_at"),
    )


class AuditEntry(Base):
    """What somebody did with a token, a slot or data, append-only: a trigger refuses every change of a row.

    `actor` is the token it was done with, `user_name` whose that is, `address` where the request came from.
    """

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    actor: Mapped[str]
    user_name: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]
    address: Mapped[str | None]
    detail: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))


class SchedulerSeen(Base):
    """One row: when the scheduler that holds the lock last finished a tick. Readiness reads it."""

    __tablename__ = "scheduler_seen"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    instance: Mapped[uuid.UUID]
    seen_at: Mapped[datetime]

    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)
