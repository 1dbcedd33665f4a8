"""The least role that each route needs."""

from __future__ import annotations

from service.callers import Role

LEAST_ROLE = {
    "GET /whoami": Role.READER,
    "GET /jobs": Role.READER,
    "GET /jobs/{job_id}": Role.READER,
    "GET /jobs/{job_id}/attempts": Role.READER,
    "GET /jobs/{job_id}/metrics": Role.READER,
    "GET /jobs/{job_id}/correlations": Role.READER,
    "GET /jobs/{job_id}/correlations/{step}.png": Role.READER,
    "GET /jobs/{job_id}/correlations/{step}.npz": Role.READER,
    "GET /jobs/{job_id}/images": Role.READER,
    "GET /jobs/{job_id}/images/{key}/{step}.png": Role.READER,
    "GET /jobs/{job_id}/checkpoints": Role.READER,
    "GET /jobs/{job_id}/checkpoints/{checkpoint_id}/download": Role.READER,
    "GET /jobs/{job_id}/events": Role.READER,
    "GET /jobs/{job_id}/logs": Role.READER,
    "GET /compare": Role.READER,
    "GET /compare.html": Role.READER,
    "GET /experiments": Role.READER,
    "GET /experiments/{experiment_id}": Role.READER,
    "GET /nodes": Role.READER,
    "GET /datasets": Role.READER,
    "GET /recipes": Role.READER,
    "GET /recipes/{name}": Role.READER,
    # Prometheus asks it at the root: it tells how busy the lab is, and every scrape asks the run database.
    "GET /metrics": Role.READER,
    # A link for a browser, to read with what one may read anyway.
    "POST /entries": Role.READER,
    "POST /jobs": Role.SUBMITTER,
    "POST /jobs/{job_id}:cancel": Role.SUBMITTER,
    "POST /jobs/{job_id}:pause": Role.SUBMITTER,
    "POST /jobs/{job_id}:resume": Role.SUBMITTER,
    "POST /jobs/{job_id}:retry": Role.SUBMITTER,
    "POST /jobs/{job_id}:rebuild-mlflow": Role.SUBMITTER,
    "POST /experiments": Role.SUBMITTER,
    "POST /nodes/{node}/slots/{index}:release": Role.ADMIN,
    "GET /audit": Role.ADMIN,
    "POST /audit": Role.ADMIN,
    "GET /tokens": Role.ADMIN,
    "POST /tokens": Role.ADMIN,
    "DELETE /tokens/{name}": Role.ADMIN,
}
"""The least role of every guarded route, by method and path below /api/v1. A route that is not here answers nobody."""

OF_BROWSERS = {
    "GET /entries/current", "POST /sessions", "GET /sessions/current", "DELETE /sessions/current",
    "POST /sessions/current/audit",
}  # fmt: skip
"""Routes that take no token, but the code of a link or the session of a browser; whoever has none of it hears 401."""

OPEN = {
    "/healthz", "/readyz",  # load balancers and container engines have no token
    # Nothing of this installation: what stands in them stands in the source, and they say how to send a token.
    "/", "/docs", "/docs/{asset}", "/openapi.json", "/problems", "/problems/{code}",
}  # fmt: skip
"""The paths that ask for no token."""
