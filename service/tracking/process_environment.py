"""The process that MLflow runs in: a home and a folder of its own, and an environment of ours alone.

Set up before MLflow is imported: it reads much of it then, and what belongs to you - keys of clouds, the settings of
its assistant in your home - is not there to be found.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from service.tracking.settings import TrackingSettings

_KEPT = ("PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
_KEPT_BEGIN = (
    *("LC_", "BARLOW_LOCAL_DIR", "BARLOW_MLFLOW_", "BARLOW_API_URL", "BARLOW_SAME_ACCOUNT"),
    *("PYTHONUNBUFFERED", "PYTHONSAFEPATH"),
)

ARTIFACT_ROOT = "mlflow-artifacts:/"
"""The place that runs give for their files: this server, wherever it is reached."""

_FIXED = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ALLOW_MODEL_CODE_EXECUTION": "false",
    "MLFLOW_ENABLE_AI_GATEWAY": "false",
    # Host, Origin and headers are checked and set before MLflow sees a request.
    "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "true",
    "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "10",
    "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "10",
    "GIT_PYTHON_REFRESH": "quiet",
}


def clean(environment: Mapping[str, str], settings: TrackingSettings) -> dict[str, str]:
    """What of an environment is left for MLflow, and what it is told."""
    kept = {key: value for key, value in environment.items() if key in _KEPT or key.startswith(_KEPT_BEGIN)}
    return {**kept, **_FIXED, "HOME": str(settings.mlflow_home.resolve())}


def move_in(settings: TrackingSettings) -> None:
    """Change this process' environment, home and folder.

    Raises:
        OSError: the home cannot be made, or is somebody else's.
    """
    home = settings.mlflow_home.resolve()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if home.stat().st_uid != os.geteuid():
        raise OSError(f"{home} belongs to user id {home.stat().st_uid}; set BARLOW_MLFLOW_HOME to a folder of yours")
    ours = clean(os.environ, settings)
    os.environ.clear()
    os.environ.update(ours)
    os.chdir(home)


def name_stores(settings: TrackingSettings) -> None:
    """Tell MLflow where its database and its files are; its processes inherit it.

    Imports MLflow.
    """
    from mlflow.server import constants

    os.environ.update(
        {
            constants.BACKEND_STORE_URI_ENV_VAR: store(settings),
            constants.ARTIFACT_ROOT_ENV_VAR: ARTIFACT_ROOT,
            constants.SERVE_ARTIFACTS_ENV_VAR: "true",
            constants.ARTIFACTS_DESTINATION_ENV_VAR: settings.mlflow_artifacts_dir.resolve().as_uri(),
        }
    )


def store(settings: TrackingSettings) -> str:
    """MLflow's database in the words of SQLAlchemy."""
    return "postgresql+psycopg://" + settings.mlflow_database_url.get_secret_value().split("://", 1)[1]
