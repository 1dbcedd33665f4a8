"""The app: routers, problem answers, the OpenAPI document."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import Depends, FastAPI, Request
from pydantic.json_schema import models_json_schema
from starlette.types import ASGIApp, Receive, Scope, Send

from barlow_lab.specs.common import NAME_PATTERN
from barlow_lab.specs.kinds import KINDS
from barlow_lab.specs.variation import variation_schema
from service.api import auth, browsers, documentation, problems
from service.api.deps import OPENINGS, PAGES, TURNS
from service.api.figures import Figures, MeasureRequests
from service.api.hub import Hub
from service.api.lanes import Lanes
from service.api.parameters import refuse_unknown
from service.api.presentation import ROOT
from service.api.problem_views import ProblemDetails
from service.api.readiness import Parts
from service.api.routers import (
    audit,
    browser_sessions,
    experiments,
    health,
    jobs,
    nodes,
    recipes,
    records,
    streams,
    tokens,
    verbs,
)
from service.api.token_views import TokenRequest
from service.database.engine import close_engine, make_engine, session_factory
from service.settings import Settings

LOCK_SECONDS = 5.0
"""A frozen worker may hold its job's row for 20 s; requests for that job must not take all turns meanwhile."""

_DESCRIPTION = """
Pretrain image backbones with Barlow Twins and judge them: submit a job spec, follow it, compare the results.

Errors are RFC 9457 problem details; [/problems](/problems) explains every `type`. Lists answer `items` and, where there
is more, `next_page_token`. A submit with an `Idempotency-Key` can be repeated safely.
"""


def create_app(settings: Settings) -> FastAPI:
    """The API over the run database and the run directories that `settings` name. Nothing is connected yet."""
    engine = make_engine(settings, lock_seconds=LOCK_SECONDS)
    parts = Parts(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        parts.close()
        close_engine(engine)

    app = _Guarded(
        title="Barlow Lab",
        version="1",
        description=_DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.guard = auth.Guard(settings)
    app.state.engine = engine
    app.state.parts = parts
    app.state.sessions = session_factory(engine)
    app.state.turns = asyncio.Semaphore(TURNS)
    app.state.pages = asyncio.Semaphore(PAGES)
    app.state.openings = asyncio.Semaphore(OPENINGS)
    app.state.lanes = Lanes()
    app.state.hub = Hub(app.state.sessions, app.state.guard, settings)
    app.state.figures = Figures(app.state.sessions)
    problems.install(app)
    app.include_router(health.router)
    app.include_router(documentation.router)
    for module in (jobs, verbs, experiments, records, streams, nodes, recipes, tokens, audit, browser_sessions):
        guards = [Depends(auth.authorize), Depends(refuse_unknown)]
        app.include_router(module.router, prefix=ROOT, dependencies=guards)
    app.include_router(browser_sessions.own, prefix=ROOT, dependencies=[Depends(refuse_unknown)])
    app.add_middleware(_RefuseNul)
    app.add_middleware(MeasureRequests, figures=app.state.figures)
    _document(app)
    return app


class _Guarded(FastAPI):
    """The app behind what browsers are owed; the answer to a bug, too, which the app's own middleware does not see."""

    def build_middleware_stack(self) -> ASGIApp:
        return browsers.guard(super().build_middleware_stack(), self.state.settings)


class _RefuseNul:
    """No name holds a NUL and Postgres takes none, so a path or query with one is refused before it is looked up."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and ("\0" in scope["path"] or b"\0" in unquote_to_bytes(scope["query_string"])):
            refused = problems.Problem("bad-request", "the address holds a NUL byte (%00)")
            await problems.answer(Request(scope), refused)(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _document(app: FastAPI) -> None:
    """Add to the OpenAPI document what handlers read themselves: the specs and the problem details."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = plain()
            schemas = document["components"]["schemas"]
            models = [(model, "validation") for model in (*KINDS.values(), ProblemDetails, TokenRequest)]
            _, definitions = models_json_schema(models, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
            schemas |= definitions["$defs"]
            schemas["Spec"] = {
                "oneOf": [{"$ref": f"#/components/schemas/{model.__name__}"} for model in KINDS.values()],
                "discriminator": {
                    "propertyName": "kind",
                    "mapping": {kind: f"#/components/schemas/{model.__name__}" for kind, model in KINDS.items()},
                },
            }
            schemas["ExperimentSpec"] = {
                "type": "object",
                "required": ["name", "jobs"],
                "additionalProperties": False,
                "properties": {
                    "name": {
                        "type": "string",
                        "pattern": NAME_PATTERN,
                        "description": "Of the experiment, in MLflow, too; that of another one is refused",
                    },
                    "jobs": {
                        "type": "object",
                        "minProperties": 1,
                        "additionalProperties": {"$ref": "#/components/schemas/Spec"},
                        "description": "Specs by name, each with seeds, grid and zip of its own if it is to vary alone",
                    },
                    **variation_schema(),
                },
            }
            for path in document["paths"].values():
                for operation in path.values():
                    _without_default_422(operation["responses"])
            if app.state.guard.on:
                auth.document(document, ROOT)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _without_default_422(responses: dict[str, Any]) -> None:
    """FastAPI documents its own form of 422, which is never sent."""
    default = responses.get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if default.get("$ref", "").endswith("/HTTPValidationError"):
        del responses["422"]
