"""What ranks and helpers of a worker can see of it: of its environment what computing needs, of its memory nothing."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rights import without_rights
from worker_host import Host, at_work, small_pretraining

from service.settings import Settings
from worker.environment import passed_on

REPOSITORY = Path(__file__).parents[2]
CLOSED = {
    "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "GOOGLE_APPLICATION_CREDENTIALS": "/c", "HF_TOKEN": "d",
    "PGPASSWORD": "e", "PGHOST": "f", "MLFLOW_TRACKING_TOKEN": "g", "SSH_AUTH_SOCK": "/h", "http_proxy": "http://i:j@k",
    "BARLOW_DATABASE_URL": "postgresql://l:m@n/o", "BARLOW_REDIS_URL": "redis://:p@q", "BARLOW_MLFLOW_URL": "http://r",
    "BARLOW_ADMIN_TOKEN": "s" * 40, "BARLOW_SOMETHING_NEW": "t", "TORCH_HUB_TOKEN": "u", "NVIDIA_API_KEY": "v",
    "PYTHONSTARTUP": "/w", "PYTHONWARNINGS": "default", "PYTHONDEVMODE": "", "CELERY_BROKER_URL": "redis://x",
}  # fmt: skip
OPEN = {
    "NCCL_SOCKET_IFNAME": "eth0", "OMP_WAIT_POLICY": "PASSIVE", "LC_ALL": "C.UTF-8", "TZ": "UTC",
    "CUDA_CACHE_PATH": "/y", "TORCHINDUCTOR_MAX_AUTOTUNE": "0",
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", "KMP_BLOCKTIME": "0",
}  # fmt: skip


def test_a_rank_and_the_count_of_data_sets_get_what_computing_needs_and_no_password(
    database: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {**CLOSED, **OPEN, "LAB_LICENCE": "1", "LAB_KEY": "2"}.items():
        monkeypatch.setenv(name, value)
    # Of a process that hides, only root could read it from outside.
    said = "json.dump([sys.orig_argv, dict(os.environ)], open(os.path.dirname(__file__) + f'/{os.getpid()}.part', 'w'))"
    shown = "os.rename(*(os.path.dirname(__file__) + f'/{os.getpid()}.{end}' for end in ('part', 'json')))"
    (tmp_path / "sitecustomize.py").write_text(f"import json, os, sys\n{said}\n{shown}\n")
    monkeypatch.setenv("PYTHONPATH", f"{os.pathsep}{tmp_path}", prepend=os.pathsep)
    (tmp_path / "datasets.yaml").write_text(f"photos: {{format: image_folder, root: {tmp_path / 'photos'}}}\n")
    wanted = {"rank_environment": ("LAB_KEY", "LAB_UNSET"), "datasets_file": tmp_path / "datasets.yaml"}
    work = at_work(Host(database, **wanted))
    host = next(work)
    job_id = host.post(small_pretraining(epochs=1))
    assert host.finish(job_id).state == "succeeded"

    def given() -> dict[str, dict[str, str]]:
        shown = [json.loads(file.read_text()) for file in tmp_path.glob("*.json")]
        return {argv[argv.index("-m") + 1]: environment for argv, environment in shown if "-m" in argv}

    host.wait(lambda: given().keys() >= {"trainer", "trainer.survey"})
    for module, found in given().items():
        assert not CLOSED.keys() & found.keys(), module
        assert found.items() >= OPEN.items()
        assert found["LAB_KEY"] == "2"
        assert "LAB_LICENCE" not in found
        assert found["PATH"] == os.environ["PATH"]
        assert "" not in found["PYTHONPATH"].split(os.pathsep), "the folder of the worker"
    assert not list(work), "drained, and checked"


def test_a_lab_names_what_else_its_ranks_need_but_nothing_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BARLOW_RANK_ENVIRONMENT", "LAB_A, LAB_B")
    settings = Settings(database_url="postgresql://unused")
    assert passed_on(settings, {"LAB_A": "1", "LAB_C": "2", "HOME": "/h"}) == {"HOME": "/h", "LAB_A": "1"}
    for bad in ("BARLOW_DATABASE_URL", "LAB_A=1", "LAB A;B"):
        monkeypatch.setenv("BARLOW_RANK_ENVIRONMENT", bad)
        with pytest.raises(ValueError, match="cannot be passed on to ranks"):
            Settings(database_url="postgresql://unused")


@pytest.mark.parametrize("module", ["worker", "trainer"])
def test_a_worker_and_its_ranks_hide_their_memory_from_others_of_their_account(tmp_path: Path, module: str) -> None:
    tmp_path.chmod(0o777)
    arguments = ["spec.json", "--run-dir", "run"] if module == "trainer" else []
    (tmp_path / "spec.json").write_text(json.dumps(small_pretraining(epochs=1000)))
    environment = {**os.environ, "BARLOW_DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none", "BARLOW_NODE_NAME": "n"}
    process = subprocess.Popen(
        [*without_rights(), sys.executable, "-P", "-m", module, *arguments],
        cwd=tmp_path,
        env={**environment, "BARLOW_HIDE": "1", "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        proc, deadline = Path(f"/proc/{process.pid}"), time.monotonic() + 60
        # What a process hides belongs to root; that of setpriv, which becomes it, does, too.
        ours = sys.executable.encode()
        while not ((proc / "cmdline").read_bytes().startswith(ours) and (proc / "environ").stat().st_uid == 0):
            assert process.poll() is None
            assert time.monotonic() < deadline, "it does not hide"
            time.sleep(0.01)
        if module == "trainer":
            while "NoNewPrivs:\t1" not in (proc / "status").read_text():
                assert time.monotonic() < deadline
                time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
