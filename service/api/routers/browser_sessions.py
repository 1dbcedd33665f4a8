"""Browsers at servers beside the API: a link with a code, and the session that the code is redeemed for.

A link is seen by whatever sees addresses, so no token is in it, but a code that is good for one session within minutes.
The session is for one server, and ends with the token that the link was asked for with.
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from service.api.audit import Action, Asked, Client, Subject, record_in_mlflow
from service.api.auth import CallerDep, Guard, RefusedToken, bearer, unauthorized
from service.api.browser_views import Entry, EntryTarget, SessionMade, SessionView
from service.api.deps import SessionDep, SettingsDep, find_experiment, find_job
from service.api.presentation import mlflow_base, mlflow_page
from service.api.problems import Problem, responses
from service.api.token_secrets import sha256
from service.callers import Caller, Role
from service.database.tables import BrowserSession, Experiment
from service.recording import homes
from service.settings import Settings

MLFLOW = "mlflow"
CODE_LASTS = timedelta(minutes=10)
SESSION_LASTS = timedelta(hours=12)
KEPT = 100
"""Codes and sessions of one token; the oldest give way."""

router = APIRouter(tags=["browsers"])
own = APIRouter(tags=["browsers"])
"""Routes whose credential is a code or a session. The server that a browser has come to asks them."""


@router.post(
    "/entries",
    operation_id="create_entry",
    status_code=201,
    responses=responses("not-found", "no-page", "invalid-parameters"),
)
def create_entry(
    request: Request,
    session: SessionDep,
    settings: SettingsDep,
    _: CallerDep,
    response: Response,
    job: Annotated[str | None, Query(description="Id of a job, to whose run it is to lead")] = None,
    experiment: Annotated[str | None, Query(description="Id or name of an experiment, to lead there")] = None,
) -> Entry:
    """Make a link that lets a browser into MLflow, once and within minutes.

    The session lasts 12 hours, and no longer than the token that the link is made with. Where no tokens are needed, it
    is the plain address.
    """
    base, page = _page(session, settings, job, experiment)
    response.headers["Cache-Control"] = "no-store"
    guard: Guard = request.app.state.guard
    if not guard.on:
        return Entry(url=page, expires_at=None)
    code, token = secrets.token_urlsafe(32), _digest(request)
    _make_room(session, token)
    made = BrowserSession(
        code_sha256=sha256(code),
        service=MLFLOW,
        path=page.removeprefix(base) or "/",
        token_sha256=token,
        expires_at=func.now() + CODE_LASTS,
    )
    session.add(made)
    session.flush()
    session.refresh(made)
    return Entry(url=f"{base}/enter?code={code}", expires_at=made.expires_at)


@own.get("/entries/current", operation_id="read_entry", responses=responses("unauthorized"))
def read_entry(request: Request, session: SessionDep) -> EntryTarget:
    """Where the link leads whose code the request carries, and whether it can still be redeemed. Changes nothing."""
    this = BrowserSession.code_sha256 == _digest(request)
    usable = BrowserSession.secret_sha256.is_(None) & (BrowserSession.expires_at > func.now())
    found = session.execute(select(BrowserSession, usable).where(this)).one_or_none()
    if found is None:
        raise unauthorized("the code is not known here")
    return EntryTarget(service=found[0].service, path=found[0].path, usable=found[1])


@own.post("/sessions", operation_id="create_session", status_code=201, responses=responses("unauthorized"))
def create_session(request: Request, session: SessionDep, response: Response) -> SessionMade:
    """Redeem the code that the request carries. It is good once."""
    secret = secrets.token_urlsafe(32)
    redeem = (
        update(BrowserSession)
        .where(BrowserSession.code_sha256 == _digest(request))
        .where(BrowserSession.secret_sha256.is_(None), BrowserSession.expires_at > func.now())
        .values(secret_sha256=sha256(secret), expires_at=func.now() + SESSION_LASTS)
        .returning(BrowserSession)
    )
    row = session.scalar(redeem)
    if row is None:
        raise unauthorized("the code is not known here, was redeemed, or has expired")
    response.headers["Cache-Control"] = "no-store"
    seconds = int(SESSION_LASTS.total_seconds())
    return SessionMade(**dict(_view(request, session, row)), secret=secret, path=row.path, seconds=seconds)


@own.get("/sessions/current", operation_id="read_session", responses=responses("unauthorized"))
def read_session(request: Request, session: SessionDep) -> SessionView:
    """Whose session the request carries, if it still counts."""
    this = BrowserSession.secret_sha256 == _digest(request)
    row = session.scalar(select(BrowserSession).where(this, BrowserSession.expires_at > func.now()))
    if row is None:
        raise unauthorized("the session is not known here, or has ended")
    return _view(request, session, row)


@own.delete("/sessions/current", operation_id="end_session", status_code=204, responses=responses("unauthorized"))
def end_session(request: Request, session: SessionDep) -> None:
    """End the session that the request carries."""
    this = BrowserSession.secret_sha256 == _digest(request)
    if session.scalar(delete(BrowserSession).where(this).returning(BrowserSession.code_sha256)) is None:
        raise unauthorized("the session is not known here, or has ended")


def _admin(view: Annotated[SessionView, Depends(read_session, scope="function")]) -> Caller:
    """Whose session the request carries, if it is an admin's. Looked at before anything else that it carries."""
    if not view.role.may(Role.ADMIN):
        raise Problem("forbidden", f"this takes the role {Role.ADMIN}, and the token {view.name} is a {view.role}")
    return Caller(view.name, view.user, view.role)


@own.post(
    "/sessions/current/audit",
    operation_id="record_act_of_session",
    status_code=204,
    responses=responses("unauthorized", "forbidden", "invalid-parameters"),
)
def record_act_of_session(
    request: Request,
    session: SessionDep,
    caller: Annotated[Caller, Depends(_admin, scope="function")],
    action: Action,
    subject: Subject,
    asked: Asked,
    client: Client,
) -> None:
    """The same as `POST /audit`, for the session that the request carries."""
    record_in_mlflow(session, request, caller, action, subject, asked, client)


def _page(session: Session, settings: Settings, job: str | None, experiment: str | None) -> tuple[str, str]:
    """MLflow's address, and the page there."""
    base = mlflow_base(settings)
    if base is None:
        raise Problem("no-page", "this API was told of no MLflow: BARLOW_MLFLOW_PUBLIC_URL where it is started")
    if job is not None:
        row = find_job(session, job)
        chosen = session.get_one(Experiment, row.experiment_id).mlflow_experiment_id
        page = mlflow_page(settings, homes(session, [row.id]).get(row.id, chosen), row.mlflow_run_id)
        if row.mlflow_run_id is None or page is None:
            raise Problem("no-page", f"job {row.name} has no run in MLflow yet: nothing of it was recorded there")
        return base, page
    if experiment is not None:
        named = find_experiment(session, experiment)
        page = mlflow_page(settings, named.mlflow_experiment_id)
        if page is None:
            raise Problem("no-page", f"experiment {named.name} is not in MLflow yet: nothing of it was recorded there")
        return base, page
    return base, base


def _digest(request: Request) -> str:
    """The hash of the code, the session or the token that a request carries.

    Raises:
        Problem: 401.
    """
    header = request.headers.get("authorization")
    try:
        return sha256(bearer(header))
    except RefusedToken as error:
        raise unauthorized(str(error), **({"error": ""} if header is None else {})) from None


def _make_room(session: Session, token: str) -> None:
    """Delete what has expired, and of this token what is too much."""
    session.execute(delete(BrowserSession).where(BrowserSession.expires_at <= func.now()))
    newest = select(BrowserSession.code_sha256).where(BrowserSession.token_sha256 == token)
    old = newest.order_by(BrowserSession.created_at.desc()).offset(KEPT - 1)
    session.execute(delete(BrowserSession).where(BrowserSession.code_sha256.in_(old)))


def _view(request: Request, session: Session, row: BrowserSession) -> SessionView:
    """The session, if the token that it comes from still counts.

    Raises:
        Problem: 401.
    """
    guard: Guard = request.app.state.guard
    try:
        caller = guard.holder(session, row.token_sha256)
    except RefusedToken as error:
        raise unauthorized(str(error)) from None
    return SessionView(
        service=row.service, name=caller.name, user=caller.user, role=caller.role, expires_at=row.expires_at
    )
