"""The application that `python -m service.tracking` serves: MLflow's own behind the gate."""

from __future__ import annotations

import httpx
from starlette.types import ASGIApp

from service import asking
from service.tracking import surroundings
from service.tracking.callers import Callers
from service.tracking.entrance import Entrance
from service.tracking.gate import Gate
from service.tracking.settings import TrackingSettings
from service.web.guarding import SecureAnswers


def create() -> ASGIApp:
    """The application, by the settings in the environment; the process has moved in already. Imports MLflow."""
    settings = TrackingSettings()
    surroundings.name_stores(settings)
    from mlflow.server.fastapi_app import app

    # The API is ours, at an address of ours: no proxy stands before it, whatever the environment says.
    client = httpx.AsyncClient(trust_env=False, event_hooks=asking.LOOKING if settings.same_account else None)
    callers = Callers(settings.api_url, settings.mlflow_token.get_secret_value(), client)
    entrance = Entrance(callers, settings.mlflow_public_url)
    return SecureAnswers(Gate(app, settings.names, callers, entrance, client.aclose))
