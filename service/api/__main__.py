"""`python -m service.api`: serve the HTTP API."""

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path and sys.path[0] == os.getcwd():
    del sys.path[0]  # `python -m` puts it first: no queue.py or random.py of whatever folder this is started in

import argparse
import logging
import socket

import uvicorn

from barlow_lab.commands import keep_own_rights
from barlow_lab.standard_streams import ready_streams
from service import logs, shell_environment
from service.api.app import create_app
from service.loopback import is_loopback
from service.settings import MAKE_TOKEN, read_networks, read_settings
from service.web.connections import PunctualProtocol, open_more_files
from service.web.listening import bind


def main() -> None:
    """Listen, print the address, serve until a signal. Exit code 1: it cannot listen where it is to."""
    ready_streams()
    keep_own_rights()
    logs.to_stderr("%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    shell_environment.disown_all()
    settings = read_settings()
    parser = argparse.ArgumentParser(prog="python -m service.api", description=__doc__)
    parser.add_argument("--host", default=settings.api_host)
    parser.add_argument("--port", type=int, default=settings.api_port, help="0 picks a free one")
    options = parser.parse_args()
    try:
        listener = listen(
            options.host, options.port, guarded=settings.admin_token is not None, shared=settings.api_port_shared
        )
    except (OSError, ValueError) as error:
        sys.exit(f"barlow api: {error}")
    print(f"Barlow Lab API: {address(listener)}", flush=True)
    open_more_files()
    # Reading a body keeps the processor busy; whoever waits for it meanwhile gets it after a millisecond, not five.
    sys.setswitchinterval(0.001)
    # Streams never end by themselves, so a stop waits for them no longer than this.
    config = uvicorn.Config(
        create_app(settings.model_copy(update={"api_host": options.host})),
        log_level="warning",
        timeout_graceful_shutdown=3,
        # Longer than proxies keep theirs: who closes first never cuts off a request that is on its way.
        timeout_keep_alive=75,
        http=PunctualProtocol,
        server_header=False,
        # What these headers say of a client and its scheme is believed of whom we are told to believe, by our settings
        # alone.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=read_networks(settings.trusted_proxies),
    )
    uvicorn.Server(config).run(sockets=[listener])


def listen(host: str, port: int, *, guarded: bool, shared: bool = False) -> socket.socket:
    """A listening socket; on a loopback address, unless the API is `guarded` by tokens. `shared`: as for `bind`.

    Raises:
        ValueError: the host is not loopback, and anybody could ask there.
        OSError: the port is taken.
    """
    if not guarded and not is_loopback(host):
        raise ValueError(
            f"host {host} is reachable from other machines, and the API has no access tokens: anyone could submit "
            f"and cancel jobs. Set BARLOW_ADMIN_TOKEN to what this prints: {MAKE_TOKEN}. Or use 127.0.0.1, and reach "
            "it through an SSH tunnel"
        )
    listener = bind(host, port, shared=shared)
    listener.listen(128)
    return listener


def address(listener: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


if __name__ == "__main__":
    main()
