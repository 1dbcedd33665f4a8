"""The audit trail, for admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from sqlalchemy import select

from service.api.audit import Action, Asked, Client, Subject, record_in_mlflow
from service.api.auth import CallerDep
from service.api.deps import SessionDep
from service.api.page_views import Page
from service.api.pages import LARGEST_PAGE, PageSize, PageToken, read_token, write_token
from service.api.problems import responses
from service.api.token_views import AuditView
from service.database.tables import AuditEntry

router = APIRouter(tags=["tokens"])


@router.get("/audit", operation_id="list_audit", responses=responses("invalid-parameters"))
def list_audit(
    session: SessionDep,
    action: Annotated[str | None, Query(max_length=100, description="Only this action")] = None,
    user: Annotated[str | None, Query(max_length=100, description="Only of this user")] = None,
    page_size: PageSize = 50,
    page_token: PageToken = None,
) -> Page[AuditView]:
    """List what was done with tokens and slots and what was deleted, newest first."""
    query = select(AuditEntry)
    if action is not None:
        query = query.where(AuditEntry.action == action)
    if user is not None:
        query = query.where(AuditEntry.user_name == user)
    after = read_token(page_token, int)
    if after is not None:
        query = query.where(AuditEntry.id < after[0])
    size = min(page_size, LARGEST_PAGE)
    found = session.scalars(query.order_by(AuditEntry.id.desc()).limit(size + 1)).all()
    shown = [
        AuditView(
            id=row.id,
            at=row.at,
            actor=row.actor,
            user=row.user_name,
            action=row.action,
            subject=row.subject,
            address=row.address,
            detail=row.detail,
        )
        for row in found[:size]
    ]
    return Page[AuditView](items=shown, next_page_token=write_token(shown[-1].id) if len(found) > size else None)


@router.post("/audit", operation_id="record_act", status_code=204, responses=responses("invalid-parameters"))
def record_act(
    request: Request,
    session: SessionDep,
    caller: CallerDep,
    action: Action,
    subject: Subject,
    asked: Asked,
    client: Client,
) -> None:
    """Write down what the caller is about to do in MLflow. The server that stands before MLflow asks for this first,
    and does nothing where it is not written."""
    record_in_mlflow(session, request, caller, action, subject, asked, client)
