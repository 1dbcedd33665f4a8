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

    code: str = Field(description="For programs")
    data: dict[str, Any] = Field(description="What the words are made of")
    words: str = Field(description="For people")


class Progress(BaseModel):
    """How far a job is; phases that have no steps count `done` of `total`."""

    model_config = ConfigDict(extra="allow")

    phase: str | None = Field(None, description="What it is at, such as `training`")
    step: int | None = Field(None, description="Updates so far")
    steps: int | None = Field(None, description="Updates in all")
    epoch: int | None = Field(None, description="Epoch that it is in, from 1")
    epochs: int | None = Field(None, description="Epochs in all")
    done: int | None = Field(None, description="Of a phase without steps")
    total: int | None = Field(None, description="That `done` counts up to")
    fraction: float | None = Field(None, description="0 to 1, of the steps or of the phase")
    images_per_second: float | None = Field(None, description="Since this attempt began")
    eta_seconds: float | None = Field(None, description="Estimated time to its end")

    @model_validator(mode="after")
    def _fraction_from_counts(self) -> Progress:
        for done, whole in ((self.step, self.steps), (self.done, self.total)):
            if self.fraction is None and done is not None and whole:
                self.fraction = done / whole
        return self


class Recording(BaseModel):
    """Whether everything an ended job wrote has arrived."""

    postgres: Literal["complete", "pending"] = Field(description="The run database")
    mlflow: Literal["complete", "pending", "off"] = Field(description="`off`: there is no MLflow")


class JobLinks(BaseModel):
    """Where to read on; `mlflow` is null until the run exists there."""

    self: str = Field(description="The job")
    experiment: str = Field(description="Its experiment")
    attempts: str = Field(description="Its attempts")
    events: str = Field(description="Its events")
    logs: str = Field(description="Its log")
    metrics: str = Field(description="Its metrics")
    correlations: str = Field(description="Its correlation records")
    images: str = Field(description="Its pictures")
    checkpoints: str = Field(description="Its checkpoints")
    mlflow: str | None = Field(description="Its run in MLflow")
    retry_of: str | None = Field(description="The job that this one is the retry of")


class JobView(BaseModel):
    """One job."""

    id: UUID = Field(description="Never used again")
    experiment: str = Field(description="Name of its experiment")
    name: str = Field(description="Unique in its experiment")
    kind: str = Field(description="What sort of job it is")
    submitted_by: str | None = Field(description="The user whose job it is; null when it is older than users are")
    state: JobState = Field(description="Where it is")
    reason: Reason | None = Field(description="Why it is not running, or why it ended so")
    place: int | None = Field(description="Place in the queue, 1 starts next; null when it is not queued")
    cancel_requested: bool = Field(description="It is to end, and has not yet")
    pause_requested: bool = Field(description="It is to pause, and has not yet")
    verbs: list[Verb] = Field(description="What you may ask of it now: POST /jobs/{id}:VERB")
    goes_on: bool = Field(
        description="It writes checkpoints and goes on from them; else an interrupted one starts over"
    )
    retry_of: UUID | None = Field(description="The job that this one is the retry of")
    retries: list[UUID] = Field(description="Jobs that are a retry of this one, oldest first")
    progress: Progress | None = Field(description="How far it is; null before it has told")
    result: dict[str, Any] | None = Field(description="What it came to; null until it has succeeded")
    error: dict[str, Any] | None = Field(description="class, message, log_tail, traceback of a failed job")
    labels: dict[str, str] = Field(description="`run.labels` of its spec")
    spec: dict[str, Any] = Field(description="The resolved spec: every default written out")
    spec_digest: str = Field(description="Equal for the same science; name and run are left out")
    slots: int = Field(description="How many it runs on")
    source_job: UUID | None = Field(description="The job whose backbone this one takes")
    after: list[UUID] = Field(description="Jobs that this one waits for")
    attempts: int = Field(description="How many there were")
    recording: Recording = Field(description="Whether all that it wrote has arrived")
    created_at: datetime = Field(description="When it was submitted")
    queued_at: datetime | None = Field(description="When it last entered the queue")
    started_at: datetime | None = Field(description="When an attempt of it first began")
    finished_at: datetime | None = Field(description="When it ended")
    links: JobLinks = Field(description="Where to read on")


class LastMetric(BaseModel):
    """The newest point of one metric."""

    step: int = Field(description="Update that it is of")
    value: float = Field(description="The number")


class JobWarning(BaseModel):
    """What a job has warned of."""

    message: str = Field(description="What was said")
    times: int = Field(description="How often it was said, in all attempts")
    at: datetime = Field(description="When it was last said")


class JobDetail(JobView):
    """One job with the newest point of each of its metrics, and what it has warned of."""

    last_metrics: dict[str, LastMetric] = Field(description="By name")
    warnings: list[JobWarning] = Field(description="The newest ones, newest first; all of them are among its events")
    more_warnings: int = Field(description="Other warnings than these")


class AttemptView(BaseModel):
    """One try at a job."""

    number: int = Field(description="From 1")
    node: str = Field(description="Where it runs or ran")
    state: str = Field(description="Where it is")
    outcome: str | None = Field(description="How it ended")
    message: str | None = Field(description="What it ended with, in words")
    last_step: int | None = Field(description="The newest update that is known")
    placed_at: datetime = Field(description="When slots were given to it")
    started_at: datetime | None = Field(description="When its worker accepted it")
    ended_at: datetime | None = Field(description="When it ended")
    lease_expires_at: datetime | None = Field(description="When it is lost unless its worker is heard")


class EventView(BaseModel):
    """One thing that happened to a job; `seq` rises by one."""

    seq: int = Field(description="From 1, without gaps")
    at: datetime = Field(description="When it happened")
    kind: str = Field(description="What happened")
    actor: str = Field(description="Who did it: a token, the scheduler, a worker")
    payload: dict[str, Any] = Field(description="What there is to say of it")


class JobBrief(BaseModel):
    """A job in a list of an experiment."""

    id: UUID = Field(description="Of the job")
    name: str = Field(description="Unique in its experiment")
    kind: str = Field(description="What sort of job it is")
    state: JobState = Field(description="Where it is")


class ExperimentView(BaseModel):
    """A named group of jobs."""

    id: UUID = Field(description="Never used again")
    name: str = Field(description="Unique")
    created_at: datetime = Field(description="When it was submitted")
    states: dict[str, int] = Field(description="Number of jobs by state")
    mlflow: str | None = Field(description="Its page in MLflow")


class ExperimentDetail(ExperimentView):
    """An experiment with its jobs, oldest first."""

    jobs: list[JobBrief] = Field(description="Oldest first")


class SlotView(BaseModel):
    """One GPU, or one CPU rank."""

    index: int = Field(description="From 0 on its node")
    kind: str = Field(description="`cuda` or `cpu`")
    device_uuid: str = Field(description="Its name that no other has")
    memory_bytes: int = Field(description="What a job has there")
    job: UUID | None = Field(description="The job that runs on it; of a quarantined slot the one that was lost there")
    quarantined_at: datetime | None = Field(description="Since when nothing is placed on it")
    words: str = Field(description="What it does, for people")


class NodeView(BaseModel):
    """A host that runs jobs."""

    name: str = Field(description="Of the host")
    live: bool = Field(description="It has a worker that was seen within one lease")
    seen_at: datetime = Field(description="When its worker was last heard")
    draining_at: datetime | None = Field(description="Since when nothing new is placed on it: its worker is to leave")
    words: str = Field(description="How it is, for people")
    registered_at: datetime = Field(description="When it was first heard")
    cores: int = Field(description="Of its CPUs")
    memory_bytes: int = Field(description="Of the host")
    versions: dict[str, Any] = Field(description="What is installed there, by name")
    slots: list[SlotView] = Field(description="By index")


class DataSetView(BaseModel):
    """A data set that a spec may name."""

    name: str = Field(description="As a spec's `data.name`")
    splits: dict[str, int] = Field(description="Images per split; none until a node has counted them")
    unlabelled: list[str] = Field(description="Splits for pretraining alone")
    classes: int | None = Field(description="None until a node has counted them")
    annotations: list[Annotations] = Field(description="What is known of each image")
    kinds: list[str] = Field(description="Kinds of jobs it is for")
    lists: list[str] = Field(description="Lists of labelled images that `labels.list` may name")
    image_size: int | None = Field(description="Side in pixels; null where nobody has said")
    description: str = Field(description="For people")
    built_in: bool = Field(description="It comes with the code")
    nodes: list[str] = Field(description="Nodes that reported it")
    checked: bool = Field(description="Whether a node has looked at all of it")
    faults: dict[str, str] = Field(description="By node why it cannot be used there, with the remedy")
    notes: dict[str, list[str]] = Field(
        description="By node what lies in its folders and is not used: images of no split, folders passed over"
    )


class Items(BaseModel):
    """Base of short lists, which come whole."""

    next_page_token: None = Field(None, description="There is no other page")


class Nodes(Items):
    """All nodes."""

    items: list[NodeView] = Field(description="By name")


class DataSets(Items):
    """All data sets."""

    items: list[DataSetView] = Field(description="By name")


class PublishedRow(BaseModel):
    """What was published of one job."""

    job: str = Field(description="Its name in the experiment; empty for a single job")
    source: str = Field(description="Citation")
    scores: dict[str, float] = Field(description="By the names of the result's scores, in percent")


class RecipeView(BaseModel):
    """A spec file to start from."""

    name: str = Field(description="Of its file, without the ending")
    what: str = Field(description="The kind of a single job, or the jobs of an experiment with their kinds")
    description: str = Field(description="The first paragraph of the file's comment")
    published: list[PublishedRow] = Field(description="Row by row")
    fault: str | None = Field(description="Why it cannot be submitted; null if it can")
    file: str = Field(description="Where its text is")


class Recipes(Items):
    """All recipes, by name."""

    items: list[RecipeView] = Field(description="By name")


class Attempts(Items):
    """All attempts of a job, oldest first."""

    items: list[AttemptView] = Field(description="Oldest first")


class Parameters(BaseModel):
    """Parameters, counted exactly."""

    backbone: int = Field(description="What is judged")
    projector: int = Field(description="What is left behind after pretraining")
    head: int | None = Field(
        description="What an evaluation puts on the backbone: a classifier, or the heads of a detector; null while no "
        "node has said how many classes there are"
    )
    objective: int = Field(description="What an objective trains itself: a predictor")
    total: int = Field(description="Of what is counted")


class Memory(BaseModel):
    """Estimated bytes on each slot."""

    weights: int = Field(description="Of the parameters")
    gradients: int = Field(description="Of those that are trained")
    optimizer: int = Field(description="Its state")
    activations: int = Field(description="What a step keeps for its gradient")
    features: int = Field(description="That are kept of images")
    objective: int = Field(description="What it holds beside the network")
    total: int = Field(description="Of all")
    formula: str = Field(description="How it was counted")


class NodeFit(BaseModel):
    """Whether one node can run the job when its slots are free."""

    node: str = Field(description="Its name")
    fits: bool = Field(description="It can run it")
    slots: int = Field(description="That the node has")
    free: int = Field(description="Of these now")
    why: str | None = Field(description="Why it cannot")


class Plan(BaseModel):
    """What a submit would do. Nothing was created."""

    kind: str = Field(description="What sort of job it is")
    spec: dict[str, Any] = Field(description="With every default written out")
    spec_digest: str = Field(description="Equal for the same science")
    slots: int = Field(description="That it takes")
    state: JobState = Field(description="In which it would begin")
    reason: Reason | None = Field(description="Why it would not run at once")
    place: int | None = Field(description="In the queue")
    parameters: Parameters | None = Field(
        description="Null for raw pixels, for a backbone of one's own, and for a backbone_from.file without an "
        "architecture: its folder on the node says what it is"
    )
    memory: Memory | None = Field(description="Of one slot; null where the parameters are")
    images: int | None = Field(description="Training images; null when no node has reported the data set yet")
    steps_per_epoch: int | None = Field(
        description="Optimiser steps; null where there are none, and for a list of labels, which the worker counts"
    )
    steps: int | None = Field(description="Updates in all")
    fits: list[NodeFit] = Field(description="Node by node")


class Check(BaseModel):
    """One condition of readiness."""

    ok: bool = Field(description="It holds")
    required: bool = Field(description="false: without it the service works on, with the loss that `detail` names")
    detail: str = Field(description="What was found")


class Readiness(BaseModel):
    """Whether the service can do its work."""

    ready: bool = Field(description="Every required check is ok")
    checks: dict[str, Check] = Field(description="database, migrations, scheduler, broker")


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = Field("ok", description="That is all it says")
