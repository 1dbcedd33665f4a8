"""The first tables: experiments, jobs, attempts, nodes, slots, what a run recorded, and its events."""

from alembic import op

revision = "0001"
down_revision = None

_TABLES = """
CREATE TABLE experiments (
    id uuid DEFAULT uuidv7() NOT NULL,
    name text NOT NULL,
    spec jsonb,
    mlflow_experiment_id text,
    created_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_experiments PRIMARY KEY (id),
    CONSTRAINT uq_experiments_name UNIQUE (name)
);

CREATE TABLE jobs (
    id uuid DEFAULT uuidv7() NOT NULL,
    experiment_id uuid NOT NULL,
    retry_of uuid,
    source_job_id uuid,
    kind text NOT NULL,
    name text NOT NULL,
    labels jsonb DEFAULT '{}' NOT NULL,
    spec jsonb NOT NULL,
    spec_digest text NOT NULL,
    state text NOT NULL,
    reason_code text,
    reason jsonb,
    priority bigint NOT NULL,
    order_key double precision NOT NULL,
    slots bigint NOT NULL,
    nodes bigint NOT NULL,
    not_before timestamptz,
    after uuid[] DEFAULT '{}' NOT NULL,
    restarts bigint DEFAULT 0 NOT NULL,
    progress jsonb,
    mlflow_run_id text,
    event_seq bigint DEFAULT 0 NOT NULL,
    cancel_requested_at timestamptz,
    pause_requested_at timestamptz,
    created_at timestamptz DEFAULT now() NOT NULL,
    queued_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    result jsonb,
    error jsonb,
    CONSTRAINT pk_jobs PRIMARY KEY (id),
    CONSTRAINT ck_jobs_state
        CHECK (state IN ('waiting', 'queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')),
    CONSTRAINT uq_jobs_experiment_id_name UNIQUE (experiment_id, name),
    CONSTRAINT fk_jobs_experiment_id FOREIGN KEY (experiment_id) REFERENCES experiments (id),
    CONSTRAINT fk_jobs_retry_of FOREIGN KEY (retry_of) REFERENCES jobs (id),
    CONSTRAINT fk_jobs_source_job_id FOREIGN KEY (source_job_id) REFERENCES jobs (id)
);
CREATE INDEX ix_jobs_experiment_id ON jobs (experiment_id);
CREATE INDEX ix_jobs_labels ON jobs USING gin (labels);
CREATE INDEX ix_jobs_queue ON jobs (slots, order_key) WHERE state = 'queued';
CREATE INDEX ix_jobs_source_job_id ON jobs (source_job_id);
CREATE INDEX ix_jobs_waiting ON jobs (id) WHERE state = 'waiting';

CREATE TABLE nodes (
    name text NOT NULL,
    instance uuid NOT NULL,
    versions jsonb NOT NULL,
    data_sets jsonb NOT NULL,
    cores bigint NOT NULL,
    memory_bytes bigint NOT NULL,
    registered_at timestamptz DEFAULT now() NOT NULL,
    seen_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_nodes PRIMARY KEY (name)
);

CREATE TABLE attempts (
    id uuid DEFAULT uuidv7() NOT NULL,
    job_id uuid NOT NULL,
    number bigint NOT NULL,
    token uuid DEFAULT gen_random_uuid() NOT NULL,
    node text NOT NULL,
    state text NOT NULL,
    outcome text,
    message text,
    lease_expires_at timestamptz,
    last_step bigint,
    last_progress_at timestamptz,
    placed_at timestamptz DEFAULT now() NOT NULL,
    started_at timestamptz,
    ended_at timestamptz,
    CONSTRAINT pk_attempts PRIMARY KEY (id),
    CONSTRAINT ck_attempts_state CHECK (state IN ('placed', 'starting', 'running', 'stopping', 'ended')),
    CONSTRAINT uq_attempts_job_id_number UNIQUE (job_id, number),
    CONSTRAINT fk_attempts_job_id FOREIGN KEY (job_id) REFERENCES jobs (id),
    CONSTRAINT fk_attempts_node FOREIGN KEY (node) REFERENCES nodes (name)
);
CREATE INDEX ix_attempts_node ON attempts (node);
CREATE UNIQUE INDEX uq_attempts_live ON attempts (job_id) WHERE state <> 'ended';

CREATE TABLE slots (
    node text NOT NULL,
    index bigint NOT NULL,
    kind text NOT NULL,
    uuid text NOT NULL,
    memory_bytes bigint NOT NULL,
    attempt_id uuid,
    quarantined_at timestamptz,
    retired_at timestamptz,
    CONSTRAINT pk_slots PRIMARY KEY (node, index),
    CONSTRAINT ck_slots_kind CHECK (kind IN ('cuda', 'cpu')),
    CONSTRAINT fk_slots_node FOREIGN KEY (node) REFERENCES nodes (name),
    CONSTRAINT uq_slots_uuid UNIQUE (uuid),
    CONSTRAINT fk_slots_attempt_id FOREIGN KEY (attempt_id) REFERENCES attempts (id)
);
CREATE INDEX ix_slots_attempt_id ON slots (attempt_id);

CREATE TABLE metrics (
    job_id uuid NOT NULL,
    key text NOT NULL,
    step bigint NOT NULL,
    value double precision NOT NULL,
    at timestamptz NOT NULL,
    attempt bigint NOT NULL,
    CONSTRAINT pk_metrics PRIMARY KEY (job_id, key, step),
    CONSTRAINT fk_metrics_job_id FOREIGN KEY (job_id) REFERENCES jobs (id)
);

CREATE TABLE correlations (
    job_id uuid NOT NULL,
    step bigint NOT NULL,
    epoch bigint,
    dim bigint NOT NULL,
    summary jsonb NOT NULL,
    file text NOT NULL,
    image text NOT NULL,
    at timestamptz NOT NULL,
    attempt bigint NOT NULL,
    CONSTRAINT pk_correlations PRIMARY KEY (job_id, step),
    CONSTRAINT fk_correlations_job_id FOREIGN KEY (job_id) REFERENCES jobs (id)
);

CREATE TABLE images (
    job_id uuid NOT NULL,
    key text NOT NULL,
    step bigint NOT NULL,
    file text NOT NULL,
    at timestamptz NOT NULL,
    attempt bigint NOT NULL,
    CONSTRAINT pk_images PRIMARY KEY (job_id, key, step),
    CONSTRAINT fk_images_job_id FOREIGN KEY (job_id) REFERENCES jobs (id)
);

CREATE TABLE checkpoints (
    id bigint GENERATED BY DEFAULT AS IDENTITY,
    job_id uuid NOT NULL,
    attempt bigint NOT NULL,
    step bigint NOT NULL,
    epoch bigint,
    kind text NOT NULL,
    uri text NOT NULL,
    sha256 text NOT NULL,
    bytes bigint NOT NULL,
    created_at timestamptz NOT NULL,
    deleted_at timestamptz,
    CONSTRAINT pk_checkpoints PRIMARY KEY (id),
    CONSTRAINT ck_checkpoints_kind CHECK (kind IN ('last', 'best', 'milestone', 'backbone')),
    CONSTRAINT uq_checkpoints_job_id_attempt_step_kind UNIQUE (job_id, attempt, step, kind),
    CONSTRAINT fk_checkpoints_job_id FOREIGN KEY (job_id) REFERENCES jobs (id)
);

CREATE TABLE watermarks (
    job_id uuid NOT NULL,
    target text NOT NULL,
    position jsonb NOT NULL,
    complete boolean DEFAULT false NOT NULL,
    updated_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_watermarks PRIMARY KEY (job_id, target),
    CONSTRAINT fk_watermarks_job_id FOREIGN KEY (job_id) REFERENCES jobs (id)
);
CREATE INDEX ix_watermarks_incomplete ON watermarks (job_id, target) WHERE NOT complete;

CREATE TABLE events (
    job_id uuid NOT NULL,
    seq bigint NOT NULL,
    at timestamptz DEFAULT clock_timestamp() NOT NULL,
    kind text NOT NULL,
    actor text NOT NULL,
    payload jsonb NOT NULL,
    CONSTRAINT pk_events PRIMARY KEY (job_id, seq),
    CONSTRAINT fk_events_job_id FOREIGN KEY (job_id) REFERENCES jobs (id)
);

CREATE TABLE idempotency_keys (
    owner text NOT NULL,
    route text NOT NULL,
    key text NOT NULL,
    request_digest text NOT NULL,
    resource text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_idempotency_keys PRIMARY KEY (owner, route, key)
);

CREATE TABLE scheduler_seen (
    id bigint NOT NULL,
    instance uuid NOT NULL,
    seen_at timestamptz NOT NULL,
    CONSTRAINT pk_scheduler_seen PRIMARY KEY (id),
    CONSTRAINT ck_scheduler_seen_one_row CHECK (id = 1)
);
"""


def upgrade() -> None:
    """Create every table of an empty database."""
    op.execute(_TABLES)
