"""Reservations, preemption, drains, long quarantines and the score of a checkpoint."""

from alembic import op

revision = "0002"
down_revision = "0001"

_CHANGES = """
ALTER TABLE jobs
    ADD COLUMN reserved_node text,
    ADD COLUMN preempting boolean DEFAULT false NOT NULL,
    ADD COLUMN data_set text GENERATED ALWAYS AS (spec -> 'data' ->> 'name') STORED NOT NULL,
    ADD COLUMN preemptible boolean
        GENERATED ALWAYS AS (coalesce((spec -> 'run' ->> 'preemptible')::boolean, false)) STORED NOT NULL,
    ADD CONSTRAINT fk_jobs_reserved_node FOREIGN KEY (reserved_node) REFERENCES nodes (name);
CREATE INDEX ix_jobs_retry_of ON jobs (retry_of);

ALTER TABLE attempts
    ADD COLUMN preempted_at timestamptz,
    ADD COLUMN preempted_for uuid,
    ADD CONSTRAINT fk_attempts_preempted_for FOREIGN KEY (preempted_for) REFERENCES jobs (id);

ALTER TABLE nodes ADD COLUMN draining_at timestamptz;

ALTER TABLE slots ADD COLUMN quarantine_reported_at timestamptz;
CREATE INDEX ix_slots_quarantined ON slots (node, index) WHERE quarantined_at IS NOT NULL;

ALTER TABLE checkpoints ADD COLUMN score double precision;
"""


def upgrade() -> None:
    """Add what scheduling and retention need; existing jobs get their generated columns at once."""
    op.execute(_CHANGES)
