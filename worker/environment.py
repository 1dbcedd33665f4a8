"""The environment of what a worker starts: what computing needs, and nothing else of what stands in the worker's own.

A worker's environment may hold the database's password, cloud keys and tokens; what runs a lab's models, on its data,
gets none of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from barlow_lab.environment import CACHE_DIR
from service.settings import Settings
from service.shell_environment import PYTHON, without_this_folder

NAMES = PYTHON | {
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "XDG_CACHE_HOME", "MPLCONFIGDIR",
    "LD_LIBRARY_PATH", "LD_PRELOAD",
    # These and PYTHON decide which interpreter, packages and code a rank runs: they must be the worker's.
    "VIRTUAL_ENV", "CONDA_PREFIX",
}  # fmt: skip
PREFIXES = (
    "LC_", "CUDA_", "NVIDIA_", "NCCL_", "GLOO_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "MALLOC_",
    "TORCH_", "TORCHINDUCTOR_", "TORCHDYNAMO_", "PYTORCH_", "TRITON_",
)  # fmt: skip
SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|(^|_)(KEY|AUTH)", re.IGNORECASE)
"""A name with one of these is passed on only if BARLOW_RANK_ENVIRONMENT has it."""


def passed_on(settings: Settings, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a process that computes inherits of `environment`, left out: of this process's own."""
    here = os.environ if environment is None else environment
    usual = {name: value for name, value in here.items() if name in NAMES or name.startswith(PREFIXES)}
    chosen = {name: here[name] for name in settings.rank_environment if name in here}
    own = {CACHE_DIR: str(settings.cache_dir.absolute())} if settings.cache_dir is not None else {}
    return without_this_folder({n: value for n, value in usual.items() if not SECRET.search(n)} | chosen | own)
