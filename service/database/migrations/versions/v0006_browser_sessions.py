"""Browsers: a code in a link, and the session that it becomes."""

from alembic import op

revision = "0006"
down_revision = "0005"

_SESSIONS = """
CREATE TABLE browser_sessions (
    code_sha256 text NOT NULL,
    secret_sha256 text,
    service text NOT NULL,
    path text NOT NULL,
    token_sha256 text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT pk_browser_sessions PRIMARY KEY (code_sha256),
    CONSTRAINT uq_browser_sessions_secret_sha256 UNIQUE (secret_sha256),
    CONSTRAINT ck_browser_sessions_service CHECK (service IN ('mlflow'))
);
CREATE INDEX ix_browser_sessions_token ON browser_sessions (token_sha256, created_at);
"""


def upgrade() -> None:
    """Add the table."""
    op.execute(_SESSIONS)
