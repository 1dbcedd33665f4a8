"""Experiments with seeds, a grid or lists have a run of their own in MLflow."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the columns; no experiment of before varies."""
    op.execute("ALTER TABLE experiments ADD COLUMN varies boolean NOT NULL DEFAULT false")
    op.execute("ALTER TABLE experiments ADD COLUMN mlflow_run_id text")
    op.execute("ALTER TABLE experiments ADD COLUMN mlflow_told jsonb NOT NULL DEFAULT '{}'")
    op.execute("CREATE INDEX ix_experiments_varies ON experiments (id) WHERE varies")
