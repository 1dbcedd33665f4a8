"""Events and logs of a job: as a page, or followed as server-sent events (Accept: text/event-stream)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import PlainTextResponse
from fastapi.sse import EventSourceResponse

from service.api.auth import CallerDep
from service.api.deps import JobDep, SessionDep, SessionsDep, SettingsDep
from service.api.logs import open_log
from service.api.page_views import Page
from service.api.pages import LARGEST_PAGE, PageSize, PageToken, read_token, write_token
from service.api.problems import responses
from service.api.schemas import EventView
from service.api.streams import EventRecord, LogRecord, Stream, events_after

router = APIRouter(prefix="/jobs/{job_id}", tags=["streams"])

LastEventId = Annotated[
    int | None, Header(ge=0, lt=2**63, description="Go on after this id; browsers send it when they reconnect")
]
Follow = Annotated[bool, Query(description="false: end the stream where the record ends now")]
_SSE = {"text/event-stream": {"schema": {"type": "string"}}}


async def _opening(request: Request) -> AsyncIterator[None]:
    """A place among the streams that begin now; who asks for a page needs none."""
    if not _wants_stream(request):
        yield
        return
    openings: asyncio.Semaphore = request.app.state.openings
    async with openings:
        yield


_IN_TURN = [Depends(_opening, scope="function")]


@router.get(
    "/events",
    dependencies=_IN_TURN,
    operation_id="list_events",
    response_model=Page[EventView],
    responses={
        200: {"content": _SSE, "description": "A page of events, or a stream of them whose ids are their numbers"},
        **responses("not-found", "invalid-parameters", "too-many-requests"),
    },
)
def list_events(
    request: Request,
    job: JobDep,
    session: SessionDep,
    sessions: SessionsDep,
    caller: CallerDep,
    last_event_id: LastEventId = None,
    follow: Follow = True,
    page_size: PageSize = 50,
    page_token: PageToken = None,
) -> Page[EventView] | EventSourceResponse:
    """What happened to a job, oldest first."""
    if _wants_stream(request):
        record = EventRecord(sessions, job.id)
        return Stream(request, caller, (job.id, "events"), record, last_event_id or 0, follow=follow)
    after = read_token(page_token, int)
    size = min(page_size, LARGEST_PAGE)
    rows = events_after(session, job.id, after[0] if after else 0, size + 1)
    shown = [EventView.model_validate(row, from_attributes=True) for row in rows[:size]]
    return Page[EventView](items=shown, next_page_token=write_token(shown[-1].seq) if len(rows) > size else None)


@router.get(
    "/logs",
    dependencies=_IN_TURN,
    operation_id="read_logs",
    response_class=PlainTextResponse,
    responses={
        200: {
            "content": {"text/plain": {"schema": {"type": "string"}}, **_SSE},
            "description": "Text, or a stream of whole lines whose ids are byte offsets",
            "headers": {
                "Barlow-Next-Offset": {"schema": {"type": "integer"}, "description": "Byte after the last one here"},
                "Barlow-Log-Size": {"schema": {"type": "integer"}, "description": "Bytes there are now"},
            },
        },
        **responses("not-found", "invalid-parameters", "too-many-requests"),
    },
)
def read_logs(
    request: Request,
    job: JobDep,
    settings: SettingsDep,
    caller: CallerDep,
    attempt: Annotated[
        int | None, Query(ge=1, lt=10_000, description="Only this attempt; left out: all, one after another")
    ] = None,
    offset: Annotated[int, Query(ge=0, lt=2**63, description="First byte")] = 0,
    limit: Annotated[int, Query(ge=1, le=10_000_000, description="Bytes; for text only")] = 1_000_000,
    last_event_id: LastEventId = None,
    follow: Follow = True,
) -> Response:
    """What the trainer has written, rank by rank, across all attempts."""
    job_id = job.id
    if not _wants_stream(request):
        log = open_log(settings, job_id, attempt)
        text = log.read(offset, limit)
        headers = {"Barlow-Next-Offset": str(offset + len(text)), "Barlow-Log-Size": str(log.size)}
        return PlainTextResponse(text, headers=headers)

    start = offset if last_event_id is None else last_event_id
    key = (job_id, "log" if attempt is None else f"log of attempt {attempt}")
    return Stream(request, caller, key, LogRecord(settings, job_id, attempt), start, follow=follow)


def _wants_stream(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")
