"""python -m worker: work on what is placed on this host. Settings are environment variables BARLOW_*."""

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path and sys.path[0] == os.getcwd():
    del sys.path[0]  # `python -m` puts it first: no queue.py or random.py of whatever folder this is started in

import logging
import resource

from barlow_lab import kernel
from barlow_lab.commands import keep_own_rights
from barlow_lab.standard_streams import ready_streams
from service import logs, marks, shell_environment
from service.settings import read_settings

log = logging.getLogger("worker")


def main() -> int:
    """Run the worker; returns the exit status: 0 after a drain, 2 if it could not start."""
    ready_streams()
    keep_own_rights()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logs.to_stderr("%(asctime)s %(levelname)s %(name)s: %(message)s")
    if marks.sees_hidden():
        kernel.hide()
    else:
        log.warning(
            "/proc is mounted with hidepid: worker and ranks do not hide their memory from other processes of this "
            "account, or they would hide from each other; to have both, add the account to the mount's group (gid=)"
        )
    shell_environment.disown_all()
    settings = read_settings()
    from worker.app import run  # late: Celery reads some variables when it is imported

    return run(settings)


if __name__ == "__main__":
    sys.exit(main())
