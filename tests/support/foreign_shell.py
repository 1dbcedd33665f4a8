"""A shell and a folder of somebody with other projects: variables that lead elsewhere, modules of common names."""

from __future__ import annotations

from pathlib import Path

NOWHERE = "127.0.0.1:9"
"""The discard port: nobody listens there."""

POSTGRES = {
    "PGHOST": "192.0.2.1",
    "PGHOSTADDR": "192.0.2.1",
    "PGPORT": "1",
    "PGDATABASE": "theirs",
    "PGUSER": "them",
    "PGPASSWORD": "theirs",
    "PGPASSFILE": "/nonexistent/pgpass",
    "PGSERVICE": "theirs",
    "PGSERVICEFILE": "/nonexistent/services",
    "PGOPTIONS": "-c search_path=theirs -c default_transaction_read_only=on",
    "PGSSLMODE": "verify-full",
    "PGSSLROOTCERT": "/nonexistent/root.crt",
    "PGAPPNAME": "theirs",
    "PGTZ": "Asia/Tokyo",
    "PGDATESTYLE": "German",
    "PGCLIENTENCODING": "LATIN1",
    "PGTARGETSESSIONATTRS": "standby",
    "PGCHANNELBINDING": "require",
    "PGREQUIREAUTH": "gss",
    "PGCONNECT_TIMEOUT": "1",
    "PGDATA": "/nonexistent/data",
}
CELERY = {
    "CELERY_BROKER_URL": f"redis://{NOWHERE}/0",
    "CELERY_BROKER_READ_URL": f"redis://{NOWHERE}/1",
    "CELERY_BROKER_WRITE_URL": f"redis://{NOWHERE}/2",
    "CELERY_RESULT_BACKEND": f"redis://{NOWHERE}/3",
    "CELERY_CONFIG_MODULE": "theirs.celeryconfig",
    "CELERY_LOADER": "theirs.loader:Loader",
    "CELERY_TRACE_APP": "1",
    "KOMBU_LOG_DEBUG": "1",
    "DJANGO_SETTINGS_MODULE": "theirs.settings",
}
PROXIES = {
    "http_proxy": f"http://{NOWHERE}",
    "HTTP_PROXY": f"http://{NOWHERE}",
    "https_proxy": f"http://{NOWHERE}",
    "ALL_PROXY": "socks5h://" + NOWHERE,
    "NO_PROXY": "theirs.example",
    "SSL_CERT_FILE": "/nonexistent/ca.pem",
    "SSL_CERT_DIR": "/nonexistent/certs",
    "REQUESTS_CA_BUNDLE": "/nonexistent/ca.pem",
    "CURL_CA_BUNDLE": "/nonexistent/ca.pem",
}
MLFLOW = {
    "MLFLOW_TRACKING_URI": f"http://{NOWHERE}",
    "MLFLOW_TRACKING_TOKEN": "theirs",
    "MLFLOW_TRACKING_USERNAME": "them",
    "MLFLOW_TRACKING_PASSWORD": "theirs",
    "MLFLOW_BACKEND_STORE_URI": "sqlite:////nonexistent/theirs.db",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "50",
    "MLFLOW_SERVER_ALLOWED_HOSTS": "theirs.example",
    "_MLFLOW_STATIC_PREFIX": "/theirs",
}
SERVERS = {
    "UVICORN_ROOT_PATH": "/theirs",
    "UVICORN_SSL_KEYFILE": "/nonexistent/key.pem",
    "GUNICORN_CMD_ARGS": "--bind=192.0.2.1:1",
    "FLASK_DEBUG": "1",
    "WEB_CONCURRENCY": "8",
    "FORWARDED_ALLOW_IPS": "*",
}
WORDS = {
    "LC_ALL": "C",
    "PYTHONIOENCODING": "latin-1",
    "COLUMNS": "20",
    "TERM": "dumb",
    "NO_COLOR": "1",
    "GIT_DIR": "/nonexistent/git",
}

PYTHON = {
    "PYTHONWARNINGS": "error",
    "PYTHONOPTIMIZE": "2",
    "PYTHONASYNCIODEBUG": "1",
}
"""Of somebody who looks for a fault in a program of their own."""

VARIABLES = {**POSTGRES, **CELERY, **PROXIES, **MLFLOW, **SERVERS, **WORDS, **PYTHON}

MODULES = (
    "barlow_lab",
    "trainer",
    "service",
    "worker",
    "queue",
    "random",
    "json",
    "argparse",
    "logging",
    "torch",
    "mlflow",
    "uvicorn",
)


def make_folder(folder: Path, *, without: tuple[str, ...] = ()) -> Path:
    """A folder whose modules have names that ours import; each ends whatever runs it, and says so."""
    folder.mkdir()
    for name in set(MODULES) - set(without):
        (folder / f"{name}.py").write_text(f"import os\nos.write(2, b'{name}.py OF THE FOLDER IS RUN')\nos._exit(7)\n")
    return folder
