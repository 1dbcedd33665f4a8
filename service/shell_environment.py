"""What the shell that started us says to others, and not to us: our connections are what our settings say, alone.

libpq, Celery, MLflow's client and requests each fill in what they were not told from environment variables, some of
them over what they were told. A shell has those of other projects. Whoever makes such a connection disowns the
variables of its kind first; a program of ours begins with all of them, as some are read when a package is imported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

DATABASE = ("PG", "PSYCOPG_")
"""libpq takes host, password and options from PG*, and PGHOSTADDR, PGSERVICE and PGOPTIONS beside any URL."""
BROKER = ("CELERY", "KOMBU_", "C_FORCE_ROOT", "FORKED_BY_MULTIPROCESSING", "DJANGO_SETTINGS_MODULE")
"""CELERY_BROKER_READ_URL and its like win over what the code says."""
TRACKING = ("MLFLOW_", "_MLFLOW_", "DATABRICKS_")
SERVERS = ("UVICORN_", "GUNICORN_", "FLASK_", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS")
"""What web servers read: who may say where a request came from is none of another project's business."""

PYTHON = frozenset({
    # Which interpreter, packages and code run, and where their byte code lies.
    "PYTHONHOME", "PYTHONPLATLIBDIR", "PYTHONPATH", "PYTHONSAFEPATH", "PYTHONNOUSERSITE", "PYTHONUSERBASE",
    "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX",
    # What they write, how many cores they see, who may look into them.
    "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONUNBUFFERED", "PYTHONFAULTHANDLER", "PYTHONHASHSEED", "PYTHON_CPU_COUNT",
    "PYTHON_DISABLE_REMOTE_DEBUG",
})  # fmt: skip
"""What a program that we start is told of the interpreter. The others change how a program runs for whoever looks for a
fault in one of their own: warnings become errors (PYTHONWARNINGS), asserts and texts are gone (PYTHONOPTIMIZE), an end
becomes a prompt (PYTHONINSPECT), all is slow and loud (PYTHONDEVMODE, PYTHONASYNCIODEBUG, PYTHONTRACEMALLOC)."""

_PLAIN = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_", "TZ", "TMPDIR", "XDG_", "LD_LIBRARY_PATH")


def without_this_folder(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment whose PYTHONPATH has no empty part, as shells make one with `$PYTHONPATH:/opt/x`: to Python that
    is the folder it is started in, which goes before its own modules."""
    parts = [part for part in environment.get("PYTHONPATH", "").split(os.pathsep) if part]
    others = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    return {**others, "PYTHONPATH": os.pathsep.join(parts)} if parts else others


def disown(*kinds: str) -> None:
    """Take the variables whose names begin so out of the environment of this process."""
    for name in [name for name in os.environ if name.startswith(kinds)]:
        del os.environ[name]


def disown_all() -> None:
    """Take out all that would lead one of our connections or servers elsewhere. How a program of ours begins."""
    disown(*DATABASE, *BROKER, *TRACKING, *SERVERS)


def ask_nobody_else() -> None:
    """No proxy and no ~/.netrc stands between this process and what it asks.

    For a process that asks our own servers alone, and by a library that offers no other way.
    """
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    os.environ.update(NO_PROXY="*", NETRC=os.devnull)


def for_other_servers(environment: Mapping[str, str]) -> dict[str, str]:
    """What a server of others needs of an environment: where things are, and the language."""
    return without_this_folder(
        {name: value for name, value in environment.items() if name.startswith(_PLAIN) or name in PYTHON}
    )


def of_a_program_of_ours(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without what is for others, and without the tokens of whoever started us.

    GPUs, threads and compilers have too many names to list: what a job may see of it, the worker decides.
    """
    foreign = (*DATABASE, *BROKER, *TRACKING, *SERVERS, "PYTHON", "BARLOW_ADMIN_TOKEN", "BARLOW_TOKEN")
    kept = {
        name: value
        for name, value in environment.items()
        if name in PYTHON or not (name.startswith(foreign) or name.lower().endswith("_proxy"))
    }
    return without_this_folder(kept)
