"""`python -m service.tracking`: serve MLflow behind our tokens."""

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path and sys.path[0] == os.getcwd():
    del sys.path[0]  # `python -m` puts it first: no queue.py or random.py of whatever folder this is started in

import contextlib

import uvicorn
from pydantic import ValidationError
from uvicorn.supervisors import Multiprocess

from barlow_lab.commands import keep_own_rights
from barlow_lab.standard_streams import ready_streams
from service.settings import in_words
from service.tracking import process_environment
from service.tracking.settings import TrackingSettings
from service.web.connections import PunctualProtocol, open_more_files
from service.web.listening import bind


def main() -> None:
    """Bring MLflow's database up to date, listen, serve until a signal. Exit code 1: it cannot."""
    ready_streams()
    keep_own_rights()
    try:
        settings = TrackingSettings()
        process_environment.move_in(settings)
        listener = bind(settings.mlflow_host, settings.mlflow_port, shared=settings.mlflow_port_shared)
    except ValidationError as error:
        sys.exit(in_words(error))
    except OSError as error:
        sys.exit(f"barlow mlflow: {error}")
    process_environment.name_stores(settings)
    from mlflow.server.handlers import initialize_backend_stores

    # Once, before the processes that answer start: it makes and migrates the tables.
    store = process_environment.store(settings)
    initialize_backend_stores(store, store, process_environment.ARTIFACT_ROOT)
    open_more_files()
    config = uvicorn.Config(
        "service.tracking.app:create",
        factory=True,
        workers=settings.mlflow_workers,
        log_level="warning",
        # Its lines would hold the codes of links, and headers of a client would say who it is.
        access_log=False,
        http=PunctualProtocol,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=15,
    )
    with contextlib.suppress(KeyboardInterrupt):
        if config.workers > 1:
            Multiprocess(config, sockets=[listener]).run()
        else:
            uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
