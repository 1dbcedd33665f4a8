"""No query parameter is passed over: a mistyped `validate_only` must not submit the job."""

from __future__ import annotations

from fastapi import Request

from barlow_lab.spelling import nearest
from service.api.presentation import ROOT
from service.api.problems import invalid_parameter


async def refuse_unknown(request: Request) -> None:
    """Compare the query with the parameters that the OpenAPI document gives the route.

    Raises:
        Problem: 422, naming the nearest known parameter.
    """
    if not request.query_params:
        return
    operation = request.app.openapi()["paths"][ROOT + request.scope["route"].path][request.method.lower()]
    known = [item["name"] for item in operation.get("parameters", []) if item["in"] == "query"]
    for name in request.query_params:
        if name not in known:
            near = nearest(name, known)
            rest = f"known: {', '.join(known)}" if known else "there are none here"
            hint = f"did you mean {near!r}?" if near else rest
            raise invalid_parameter(name[:100], f"unknown parameter; {hint}")
