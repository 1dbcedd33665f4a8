"""The audit trail: who did what with tokens, slots and what is deleted; written with the act or not at all.

What an admin does in MLflow itself is done elsewhere: the server that stands before it has it written here first.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request
from sqlalchemy.orm import Session

from barlow_lab.foreign_text import shown
from service.api.deps import client_address
from service.api.problems import ACT_PATTERN
from service.callers import Caller
from service.database.tables import AuditEntry

TOKEN_CREATED = "token.create"
TOKEN_REVOKED = "token.revoke"
SLOT_RELEASED = "slot.release"
MLFLOW_REBUILT = "mlflow.rebuild"
"""It deletes the job's MLflow run, which is made again."""


Action = Annotated[
    str,
    Query(pattern=ACT_PATTERN, max_length=100, description="For example mlflow.runs.delete"),
]
Subject = Annotated[str, Query(min_length=1, max_length=1000, description="What it is done to")]
Asked = Annotated[str, Query(max_length=4000, description="What MLflow is asked, as JSON")]
Client = Annotated[str, Query(max_length=100, description="Where that server was asked from")]


def record_in_mlflow(
    session: Session, request: Request, caller: Caller, action: str, subject: str, asked: str, client: str
) -> None:
    """Add what an admin is about to do in MLflow, on the word of the server that stands before it."""
    detail = {"client": shown(client), "request": shown(asked)}
    record(session, request, caller, action, shown(subject), detail)


def record(
    session: Session, request: Request, caller: Caller, action: str, subject: str, detail: dict[str, Any] | None = None
) -> None:
    """Add an act to the trail, in the transaction that does it. No secret belongs in `detail`."""
    session.add(
        AuditEntry(
            actor=caller.name,
            user_name=caller.user,
            action=action,
            subject=subject,
            address=client_address(request),
            detail=detail or {},
        )
    )
