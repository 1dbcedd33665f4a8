"""The application that `python -m service.tracking` serves: MLflow's own behind the gate."""

from __future__ import annotations

import httpx
from starlette.types import ASGIApp

from service import outgoing_http
from service.tracking import process_environment
from service.tracking.browser_login import BrowserLogin
from service.tracking.callers import Callers
from service.tracking.gate import Gate
from service.tracking.settings import TrackingSettings
from service.web.guarding import SecureAnswers


def create() -> ASGIApp:
    """The application, by the settings in the environment; the process has moved in already. Imports MLflow."""
    settings = TrackingSettings()
    process_environment.name_stores(settings)
    from mlflow.server.fastapi_app import app

    # The API is ours, at an address of ours: no proxy stands before it, whatever the environment says.
    client = httpx.AsyncClient(trust_env=False, event_hooks=outgoing_http.LOOKING if settings.same_account else None)
    callers = Callers(settings.api_url, settings.mlflow_token.get_secret_value(), client)
    login = BrowserLogin(callers, settings.mlflow_public_url)
    return SecureAnswers(Gate(app, settings.names, callers, login, client.aclose))
