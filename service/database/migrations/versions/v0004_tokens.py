"""Access tokens: who may ask the API for what. Only hashes of them are stored."""

from alembic import op

revision = "0004"
down_revision = "0003"

_TABLE = """
CREATE TABLE tokens (
    name text NOT NULL,
    sha256 text NOT NULL,
    role text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    created_by text NOT NULL,
    revoked_at timestamptz,
    CONSTRAINT pk_tokens PRIMARY KEY (name),
    CONSTRAINT uq_tokens_sha256 UNIQUE (sha256),
    CONSTRAINT ck_tokens_role CHECK (role IN ('reader', 'submitter', 'admin'))
);
"""


def upgrade() -> None:
    """Create the table."""
    op.execute(_TABLE)
