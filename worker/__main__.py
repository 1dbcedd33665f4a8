"""python -m worker: work on what is placed on this host. Settings are environment variables BARLOW_*."""

from __future__ import annotations

import logging
import resource
import sys

from pydantic import ValidationError

from service import logs, marks
from service.settings import Settings
from trainer import kernel
from worker.app import run

log = logging.getLogger("worker")


def main() -> int:
    """Run the worker; returns the exit status: 0 after a drain, 2 if it could not start."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logs.to_stderr("%(asctime)s %(levelname)s %(name)s: %(message)s")
    if marks.sees_hidden():
        kernel.hide()
    else:
        log.warning(
            "/proc is mounted with hidepid: worker and ranks do not hide their memory from other processes of this "
            "account, or they would hide from each other; to have both, add the account to the mount's group (gid=)"
        )
    try:
        settings = Settings()
    except ValidationError as error:
        for item in error.errors(include_url=False, include_input=False):
            name = "_".join(["BARLOW", *(str(part).upper() for part in item["loc"])])
            print(f"{name}: {item['msg'].removeprefix('Value error, ')}", file=sys.stderr)
        return 2
    return run(settings)


if __name__ == "__main__":
    sys.exit(main())
