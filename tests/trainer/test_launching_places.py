"""What `--ranks N` gives each rank: options, code, a GPU and a place to meet the others; and what it refuses."""

import json
import os
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
import torch.distributed as dist
from fifty_steps import SPEC

from trainer import launching
from trainer.__main__ import _of_one_rank
from trainer.runtime import process_group


@pytest.fixture
def without_gpu(monkeypatch):
    """Whatever this machine has."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("without_gpu")
@pytest.mark.parametrize(("local", "listening"), [("1", ("eth7", "eth7", "1")), ("2", ("lo", "=lo", "0"))])
def test_only_across_hosts_the_shell_says_where_ranks_listen(monkeypatch, local, listening):
    """As torchrun tells it: fewer ranks here than in all."""
    places = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": local, "MASTER_ADDR": "gpu-1"}
    shell = {"GLOO_SOCKET_IFNAME": "eth7", "NCCL_SOCKET_IFNAME": "eth7", "NCCL_RAS_ENABLE": "1"}
    for name, value in (places | shell).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("BARLOW_RENDEZVOUS_FILE", raising=False)
    begun = []
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: begun.append({n: os.environ[n] for n in shell}))
    process_group.join()
    assert begun == [dict(zip(shell, listening, strict=True))]


@pytest.mark.usefixtures("without_gpu")
def test_ranks_without_a_place_to_meet_are_told_how_to_start_them(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "192.0.2.1")
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.delenv("BARLOW_RENDEZVOUS_FILE", raising=False)
    with pytest.raises(ValueError, match=r"start the ranks with barlow-train --ranks 2; .* sets .*LOCAL_WORLD_SIZE"):
        process_group.join()


@pytest.mark.parametrize(
    ("named", "given"),
    [
        (None, [None, None]),
        ("", ["", ""]),
        ("-1", ["-1", "-1"]),
        ("3, 5", ["3", "5"]),
        ("GPU-a,GPU-b,GPU-c", ["GPU-a", "GPU-b"]),
    ],
)
def test_each_rank_gets_a_gpu_of_its_own_out_of_those_that_are_named(named, given):
    assert launching.gpus(2, named) == given


@pytest.mark.parametrize("named", ["0", "0,0", "0,-1,1", "0,"])
def test_fewer_gpus_than_ranks_are_refused_before_anything_starts(tmp_path, named):
    (tmp_path / "spec.json").write_text(json.dumps(SPEC.resolved()))
    done = _refused(tmp_path, "spec.json", "--ranks", 2, CUDA_VISIBLE_DEVICES=named)
    assert done.startswith(f"--ranks 2: CUDA_VISIBLE_DEVICES={named} names 1 GPU(s)")
    assert not (tmp_path / "run").exists()


def test_fewer_gpus_than_ranks_on_the_host_are_refused_by_the_ranks(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(OSError, match=r"2 ranks on this host and 1 GPU\(s\).*start at most 1"):
        process_group._device(1, 2)


def _refused(folder: Path, *arguments: Any, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "trainer", *map(str, arguments), "--run-dir", "run"],
        cwd=folder, env=ranks.environment(**environment), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    return done.stderr


def test_the_ranks_of_a_checkout_run_its_code_and_not_the_installed_one(tmp_path):
    package = tmp_path / "trainer"
    shutil.copytree(ranks.REPOSITORY / "trainer", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "execution.py").write_text("def execute(*_, **__): print(__file__)\n")
    (tmp_path / "spec.json").write_text(json.dumps(SPEC.resolved()))
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "spec.json", "--run-dir", "run", "--ranks", "2"],
        cwd=tmp_path, env=ranks.environment(PYTHONPATH=""), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    told = sorted(done.stdout.splitlines())
    assert told == [f"[{rank}] {package / 'execution.py'}" for rank in range(2)], done.stderr


def test_a_bad_spec_is_refused_once(tmp_path):
    (tmp_path / "bad.yaml").write_text("kind: pretrain\ndata: digits\nepoch: 3\n")
    assert _refused(tmp_path, "bad.yaml", "--ranks", 2) == "/epoch: unknown field; did you mean 'epochs'?\n"


def test_what_rank_0_refuses_is_not_told_as_a_broken_connection_by_the_others(tmp_path):
    (tmp_path / "spec.json").write_text(json.dumps(SPEC.resolved()))
    said = _refused(tmp_path, "spec.json", "--ranks", 2, "--data", "digits=elsewhere")
    told = "--data digits: this data set is built in and needs no folder; give yours another name"
    assert sorted(said.splitlines()) == [f"[0] {told}", "[1] rank 0 did not begin, and says why"]


def test_what_starts_ranks_itself_starts_no_launchers(tmp_path):
    assert "not under torchrun" in _refused(tmp_path, "spec.yaml", "--ranks", 2, TORCHELASTIC_RUN_ID="none")
    assert "not under a worker" in _refused(tmp_path, "spec.yaml", "--ranks", 2, "--attempt", 1)
    assert "--ranks must be at least 1" in _refused(tmp_path, "spec.yaml", "--ranks", 0)


def test_a_rank_is_given_every_option_but_the_number_of_ranks():
    given = Namespace(
        spec=Path("-x.yaml"), run_dir=Path("r"), backbone=Path("b"), datasets=Path("d.yaml"), threads=3, ranks=2,
        attempt=None, data=[("photos", "images:/a b"), ("others", "o=1")],
    )  # fmt: skip
    assert _of_one_rank(given)[1:] == [
        *("-P", "-m", "trainer", "--run-dir=r", "--backbone=b", "--datasets=d.yaml", "--threads=3"),
        *("--data=photos=images:/a b", "--data=others=o=1", "--", "-x.yaml"),
    ]
