"""Jobs with a reservation are found without reading the queue."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the index; few rows are in it."""
    op.execute("CREATE INDEX ix_jobs_reserved ON jobs (reserved_node) WHERE reserved_node IS NOT NULL")
