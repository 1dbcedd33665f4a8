"""Is the process alive, can the service work, and what does it do: for load balancers and Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import Double, Engine, cast, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from service.api.deps import SessionsDep, SettingsDep
from service.api.schemas import Check, Health, Readiness
from service.database import migrate
from service.database.tables import SchedulerSeen

router = APIRouter(tags=["health"])


@router.get("/healthz", operation_id="health")
def health() -> Health:
    """The process answers."""
    return Health()


@router.get(
    "/readyz",
    operation_id="readiness",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "At least one check has failed"}},
)
def readiness(request: Request, sessions: SessionsDep, settings: SettingsDep) -> JSONResponse:
    """Whether the service can do its work, check by check."""
    checks = {"database": Check(ok=True, detail="reachable")}
    try:
        checks["migrations"] = _migrations(request.app.state.engine)
        if checks["migrations"].ok:
            # A tick may be slow; five missed ones are not a slow tick any more.
            checks["scheduler"] = _scheduler(sessions, patience=max(10.0, 5 * settings.tick_seconds))
    except SQLAlchemyError as error:
        checks["database"] = Check(ok=False, detail=f"not reachable: {type(error).__name__}")
    answer = Readiness(ready=all(check.ok for check in checks.values()), checks=checks)
    return JSONResponse(answer.model_dump(), status_code=200 if answer.ready else 503)


@router.get("/metrics", operation_id="prometheus_metrics", response_class=Response)
def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    return Response(generate_latest(request.app.state.figures.registry), media_type=CONTENT_TYPE_LATEST)


def _migrations(engine: Engine) -> Check:
    current, head = migrate.current_and_head(engine)
    if current == head:
        return Check(ok=True, detail=f"at {head}")
    return Check(ok=False, detail=f"at {current or 'nothing'}, needs {head}: run python -m service.database upgrade")


def _scheduler(sessions: sessionmaker[Session], *, patience: float) -> Check:
    ago = cast(func.extract("epoch", func.clock_timestamp() - SchedulerSeen.seen_at), Double)
    with sessions() as session:
        silent = session.scalar(select(ago))
    if silent is None:
        return Check(ok=False, detail="never seen: start python -m service.scheduling")
    return Check(ok=silent < patience, detail=f"seen {silent:.1f} s ago")
