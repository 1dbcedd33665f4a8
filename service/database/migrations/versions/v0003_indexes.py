"""Indexes for jobs with a reservation, for lists by state, and for the place in the queue."""

from alembic import op

revision = "0003"
down_revision = "0002"

_INDEXES = """
CREATE INDEX ix_jobs_reserved ON jobs (reserved_node) WHERE reserved_node IS NOT NULL;
CREATE INDEX ix_jobs_state ON jobs (state, id);
CREATE INDEX ix_jobs_place ON jobs (order_key, id) WHERE state = 'queued';
"""


def upgrade() -> None:
    """Add the indexes."""
    op.execute(_INDEXES)
