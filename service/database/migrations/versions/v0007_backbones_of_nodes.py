"""Nodes say which backbones they have, so that a submit can refuse a file that none has."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the column; what the workers of before have is not known."""
    op.execute("ALTER TABLE nodes ADD COLUMN backbones jsonb")
