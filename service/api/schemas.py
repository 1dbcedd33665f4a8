"""What the API answers, as models: the OpenAPI document and the client are made of them. Times are UTC."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from barlow_lab.specs.catalogue import Annotations
from service.ledger.states import JobState, Verb


class Reason(BaseModel):
    """Why a job is where it is: a code for programs, words for people."""

    code: str
    data: dict[str, Any]
    words: str


class Progress(BaseModel):
    """How far a job is; phases that have no steps count `done` of `total`."""

    model_config = ConfigDict(extra="allow")

    phase: str | None = None
    step: int | None = None
    steps: int | None = None
    epoch: int | None = None
    epochs: int | None = None
    done: int | None = None
    total: int | None = None
    fraction: float | None = Field(None, description="0 to 1, of the steps or of the phase")
    images_per_second: float | None = None
    eta_seconds: float | None = None

    @model_validator(mode="after")
    def _fraction_from_counts(self) -> Progress:
        for done, whole in ((self.step, self.steps), (self.done, self.total)):
            if self.fraction is None and done is not None and whole:
                self.fraction = done / whole
        return self


class Recording(BaseModel):
    """Whether everything an ended job wrote has arrived."""

    postgres: Literal["complete", "pending"]
    mlflow: Literal["complete", "pending", "off"]


class JobLinks(BaseModel):
    """Where to read on; `mlflow` is null until the run exists there."""

    self: str
    experiment: str
    attempts: str
    events: str
    logs: str
    metrics: str
    correlations: str
    images: str
    checkpoints: str
    mlflow: str | None
    retry_of: str | None = Field(description="The job that this one is the retry of")


class JobView(BaseModel):
    """One job."""

    id: UUID
    experiment: str
    name: str
    kind: str
    submitted_by: str | None = Field(description="The user whose job it is; null when it is older than users are")
    state: JobState
    reason: Reason | None = Field(description="Why it is not running, or why it ended so")
    place: int | None = Field(description="Place in the queue, 1 starts next; null when it is not queued")
    cancel_requested: bool
    pause_requested: bool
    verbs: list[Verb] = Field(description="What you may ask of it now: POST /jobs/{id}:VERB")
    goes_on: bool = Field(
        description="It writes checkpoints and goes on from them; else an interrupted one starts over"
    )
    retry_of: UUID | None = Field(description="The job that this one is the retry of")
    retries: list[UUID] = Field(description="Jobs that are a retry of this one, oldest first")
    progress: Progress | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None = Field(description="class, message, log_tail, traceback of a failed job")
    labels: dict[str, str]
    spec: dict[str, Any] = Field(description="The resolved spec: every default written out")
    spec_digest: str = Field(description="Equal for the same science; name and run are left out")
    slots: int
    source_job: UUID | None = Field(description="The job whose backbone this one takes")
    after: list[UUID] = Field(description="Jobs that this one waits for")
    attempts: int
    recording: Recording
    created_at: datetime
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    links: JobLinks


class LastMetric(BaseModel):
    """The newest point of one metric."""

    step: int
    value: float


class JobWarning(BaseModel):
    """What a job has warned of."""

    message: str
    times: int = Field(description="How often it was said, in all attempts")
    at: datetime = Field(description="When it was last said")


class JobDetail(JobView):
    """One job with the newest point of each of its metrics, and what it has warned of."""

    last_metrics: dict[str, LastMetric]
    warnings: list[JobWarning] = Field(description="The newest ones, newest first; all of them are among its events")
    more_warnings: int = Field(description="Other warnings than these")


class AttemptView(BaseModel):
    """One try at a job."""

    number: int
    node: str
    state: str
    outcome: str | None
    message: str | None
    last_step: int | None
    placed_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    lease_expires_at: datetime | None


class EventView(BaseModel):
    """One thing that happened to a job; `seq` rises by one."""

    seq: int
    at: datetime
    kind: str
    actor: str
    payload: dict[str, Any]


class JobBrief(BaseModel):
    """A job in a list of an experiment."""

    id: UUID
    name: str
    kind: str
    state: JobState


class ExperimentView(BaseModel):
    """A named group of jobs."""

    id: UUID
    name: str
    created_at: datetime
    states: dict[str, int] = Field(description="Number of jobs by state")
    mlflow: str | None = Field(description="Its page in MLflow")


class ExperimentDetail(ExperimentView):
    """An experiment with its jobs, oldest first."""

    jobs: list[JobBrief]


class SlotView(BaseModel):
    """One GPU, or one CPU rank."""

    index: int
    kind: str
    device_uuid: str
    memory_bytes: int
    job: UUID | None = Field(description="The job that runs on it; of a quarantined slot the one that was lost there")
    quarantined_at: datetime | None
    words: str = Field(description="What it does, for people")


class NodeView(BaseModel):
    """A host that runs jobs."""

    name: str
    live: bool = Field(description="It has a worker that was seen within one lease")
    seen_at: datetime
    draining_at: datetime | None = Field(description="Since when nothing new is placed on it: its worker is to leave")
    words: str = Field(description="How it is, for people")
    registered_at: datetime
    cores: int
    memory_bytes: int
    versions: dict[str, Any]
    slots: list[SlotView]


class DataSetView(BaseModel):
    """A data set that a spec may name."""

    name: str
    splits: dict[str, int] = Field(description="Images per split; none until a node has counted them")
    unlabelled: list[str] = Field(description="Splits for pretraining alone")
    classes: int | None = Field(description="None until a node has counted them")
    annotations: list[Annotations] = Field(description="What is known of each image")
    kinds: list[str] = Field(description="Kinds of jobs it is for")
    lists: list[str] = Field(description="Lists of labelled images that `labels.list` may name")
    image_size: int | None
    description: str
    built_in: bool
    nodes: list[str] = Field(description="Nodes that reported it")
    checked: bool = Field(description="Whether a node has looked at all of it")
    faults: dict[str, str] = Field(description="By node why it cannot be used there, with the remedy")
    notes: dict[str, list[str]] = Field(
        description="By node what lies in its folders and is not used: images of no split, folders passed over"
    )


class Items(BaseModel):
    """Base of short lists, which come whole."""

    next_page_token: None = None


class Nodes(Items):
    """All nodes."""

    items: list[NodeView]


class DataSets(Items):
    """All data sets."""

    items: list[DataSetView]


class PublishedRow(BaseModel):
    """What was published of one job."""

    job: str = Field(description="Its name in the experiment; empty for a single job")
    source: str = Field(description="Citation")
    scores: dict[str, float] = Field(description="By the names of the result's scores, in percent")


class RecipeView(BaseModel):
    """A spec file to start from."""

    name: str
    what: str = Field(description="The kind of a single job, or the jobs of an experiment with their kinds")
    description: str = Field(description="The first paragraph of the file's comment")
    published: list[PublishedRow]
    fault: str | None = Field(description="Why it cannot be submitted; null if it can")
    file: str = Field(description="Where its text is")


class Recipes(Items):
    """All recipes, by name."""

    items: list[RecipeView]


class Attempts(Items):
    """All attempts of a job, oldest first."""

    items: list[AttemptView]


class Parameters(BaseModel):
    """Parameters, counted exactly."""

    backbone: int
    projector: int
    head: int | None = Field(
        description="What an evaluation puts on the backbone: a classifier, or the heads of a detector; null while no "
        "node has said how many classes there are"
    )
    objective: int = Field(description="What an objective trains itself: a predictor")
    total: int = Field(description="Of what is counted")


class Memory(BaseModel):
    """Estimated bytes on each slot."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    features: int
    objective: int
    total: int
    formula: str


class NodeFit(BaseModel):
    """Whether one node can run the job when its slots are free."""

    node: str
    fits: bool
    slots: int
    free: int
    why: str | None


class Plan(BaseModel):
    """What a submit would do. Nothing was created."""

    kind: str
    spec: dict[str, Any]
    spec_digest: str
    slots: int
    state: JobState
    reason: Reason | None
    place: int | None
    parameters: Parameters | None = Field(
        description="Null for raw pixels, for a backbone of one's own, and for a backbone_from.file without an "
        "architecture: its folder on the node says what it is"
    )
    memory: Memory | None = Field(description="Of one slot; null where the parameters are")
    images: int | None = Field(description="Training images; null when no node has reported the data set yet")
    steps_per_epoch: int | None = Field(
        description="Optimiser steps; null where there are none, and for a list of labels, which the worker counts"
    )
    steps: int | None
    fits: list[NodeFit]


class Check(BaseModel):
    """One condition of readiness."""

    ok: bool
    required: bool = Field(description="false: without it the service works on, with the loss that `detail` names")
    detail: str


class Readiness(BaseModel):
    """Whether the service can do its work."""

    ready: bool = Field(description="Every required check is ok")
    checks: dict[str, Check] = Field(description="database, migrations, scheduler, broker")


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"
