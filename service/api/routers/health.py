"""Is the process alive, can the service work, and what does it do: for load balancers and Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, RedirectResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service.api.auth import authorize
from service.api.deps import take_turn
from service.api.readiness import Parts
from service.api.schemas import Health, Readiness

router = APIRouter(tags=["health"])


@router.get("/", include_in_schema=False)
async def root() -> RedirectResponse:
    """Whoever opens the address in a browser finds the documentation."""
    return RedirectResponse("/docs")


# Neither of the two takes a thread of the pool: requests that wait for a paused database may hold all of them.
@router.get("/healthz", operation_id="health")
async def health() -> Health:
    """The process answers."""
    return Health()


@router.get(
    "/readyz",
    operation_id="readiness",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "At least one required check has failed"}},
)
async def readiness(request: Request) -> JSONResponse:
    """Whether the service can do its work, check by check; answers within seconds, whatever hangs.

    The broker is not required: without it jobs are accepted all the same and found by polling.
    """
    parts: Parts = request.app.state.parts
    answer = await parts.readiness()
    return JSONResponse(answer.model_dump(), status_code=200 if answer.ready else 503)


@router.get("/metrics", operation_id="prometheus_metrics", response_class=Response, dependencies=[Depends(authorize)])
async def metrics(request: Request) -> Response:
    """Figures for Prometheus, which sends a reader's token by `authorization: {credentials_file: FILE}`."""
    # It asks the run database, so it waits for its turn as whatever else does.
    async with take_turn(request):
        text = await run_in_threadpool(generate_latest, request.app.state.figures.registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
