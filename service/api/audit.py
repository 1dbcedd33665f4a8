"""The audit trail: who did what with tokens, slots and what is deleted; written with the act or not at all."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from sqlalchemy.orm import Session

from service.api.auth import Caller
from service.api.deps import client_address
from service.database.tables import AuditEntry

TOKEN_CREATED = "token.create"
TOKEN_REVOKED = "token.revoke"
SLOT_RELEASED = "slot.release"
MLFLOW_REBUILT = "mlflow.rebuild"
"""It deletes the job's MLflow run, which is made again."""


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
