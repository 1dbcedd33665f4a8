"""Real processes, one and two ranks: stopped, killed or out of disk, and resumed to the end of the undisturbed run."""

import json
import math
import random
import shutil
import signal
from pathlib import Path

import doomed_ranks
import psutil
import pytest
import ranks
import runs
import torch
from fifty_steps import SPEC, STEPS, command, wait_for

from trainer.pretraining import pretrain

FULL_AT = 50_000
"""Bytes: more than the journal or outcome.json of these runs has, less than state.pt."""


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run undisturbed, in this process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder: Path = tmp_path_factory.mktemp("one")
    assert pretrain(SPEC, runs.context(folder)).outcome == "ok"
    torch.set_num_threads(threads)
    return folder


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run undisturbed, as two processes."""
    folder = tmp_path_factory.mktemp("two")
    assert ranks.finish(ranks.start(command(folder), 2, folder)) == [0, 0], ranks.log(folder)
    return folder / "run"


def test_two_ranks_and_one_give_the_same_curve(one_rank, two_ranks):
    assert len(runs.events(two_ranks, kind="started")[0].data["ranks"]) == 2
    one, two = runs.series(one_rank), runs.series(two_ranks)
    assert one.keys() == two.keys()
    assert sum(name == "loss" for name, _ in one) == STEPS
    for point, value in one.items():
        assert two[point] == pytest.approx(value, rel=1e-8, abs=1e-12), point


@pytest.mark.parametrize(
    "count", [pytest.param(2, id="two to one"), pytest.param(1, id="one to two", marks=pytest.mark.faults)]
)
def test_a_checkpoint_goes_on_on_another_number_of_ranks_with_the_same_curve(one_rank, two_ranks, tmp_path, count):
    run, written = tmp_path / "run", two_ranks if count == 2 else one_rank
    shutil.copytree(written / "attempts/0001", run / "attempts/0001")
    for folder in run.glob("attempts/0001/checkpoints/step-*"):
        if int(folder.name.removeprefix("step-")) > 20:
            shutil.rmtree(folder)
    if count == 2:
        _finish_in_this_process(run, 2)
    else:
        assert ranks.finish(ranks.start(command(tmp_path), 2, tmp_path)) == [0, 0], ranks.log(tmp_path)
    assert runs.resume_step(run, 2) == 20
    (warning,) = runs.events(run, 2, "warning")
    assert [warning.data[when]["world_size"] for when in ("before", "now")] == [count, 3 - count]
    found, right = runs.series(run), runs.series(one_rank)
    assert found.keys() == right.keys()
    assert all(found[point] == pytest.approx(value, rel=1e-8, abs=1e-12) for point, value in right.items())
    ends = [runs.checkpoint(at, number, STEPS)["model"] for at, number in ((run, 2), (one_rank, 1))]
    for name, tensor in ends[1].items():
        assert (ends[0][name] - tensor).abs().max() <= 1e-10 * tensor.abs().max(), name


def _killed_while_writing(folder: Path, count: int, seed: int) -> None:
    """An attempt whose rank 0 is killed at a random line of writing one of its first checkpoints."""
    chance = random.Random(seed)
    nth, line = chance.randint(1, 3), round(math.exp(chance.uniform(0, math.log(2000))))
    spec, run = command(folder)[2], command(folder)[4]
    doomed = ranks.start([doomed_ranks.__file__, spec, run, nth, line], count, folder)
    assert ranks.finish(doomed)[0] == -signal.SIGKILL, (nth, line, ranks.log(folder))


def _finish_in_this_process(run: Path, attempt: int) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert pretrain(SPEC, runs.context(run, attempt)).outcome == "ok"
    torch.set_num_threads(threads)


@pytest.mark.parametrize("seed", [1, *(pytest.param(n, marks=pytest.mark.faults) for n in (2, 3))])
def test_a_rank_killed_in_a_checkpoint_and_resumed_equals_the_undisturbed_run(one_rank, tmp_path, seed):
    _killed_while_writing(tmp_path, 1, seed)
    _finish_in_this_process(tmp_path / "run", 2)
    _assert_equal(tmp_path / "run", 2, one_rank)


def test_one_rank_killed_at_a_random_step_and_resumed_equals_the_undisturbed_run(one_rank, tmp_path):
    doomed = ranks.start(command(tmp_path), 1, tmp_path)
    wait_for(tmp_path / "run", "metrics", step=random.randint(8, 30))
    doomed[0].send_signal(signal.SIGKILL)
    assert ranks.finish(doomed) == [-signal.SIGKILL]
    assert not (tmp_path / "run/attempts/0001/outcome.json").exists()
    _finish_in_this_process(tmp_path / "run", 2)
    assert runs.resume_step(tmp_path / "run", 2) >= 7
    _assert_equal(tmp_path / "run", 2, one_rank)


@pytest.mark.faults
def test_a_full_disk_ends_the_attempt_and_the_next_resumes_the_checkpoint_before(one_rank, tmp_path):
    run = tmp_path / "run"
    filling = ranks.start(command(tmp_path), 1, tmp_path)
    wait_for(run, "checkpoint")
    psutil.Process(filling[0].pid).rlimit(psutil.RLIMIT_FSIZE, (FULL_AT, FULL_AT))
    assert ranks.finish(filling) == [1], ranks.log(tmp_path)
    end = runs.outcome_of(run)
    assert end["outcome"] == "crashed"
    assert end["message"].startswith("the disk is full")
    assert "/checkpoints/.step-" in end["message"]
    assert "state.pt" in end["message"]
    assert runs.events(run)[-1].data["message"] == end["message"]
    assert (run / "attempts/0001/journal.jsonl").read_bytes().endswith(b"\n")
    assert [p.name for p in run.glob("attempts/0001/**/.*")] == []
    written = runs.events(run, kind="checkpoint")[-1].step
    _finish_in_this_process(run, 2)
    assert runs.resume_step(run, 2) == written
    _assert_equal(run, 2, one_rank)


def test_a_disk_too_full_for_the_journal_is_named_and_the_journal_is_whole(tmp_path):
    spec = {**SPEC.resolved(), "epochs": 400, "run": {"checkpoint": {"every_epochs": 400}}}
    spec["run"]["record"] = {"metrics_every_steps": 1, "correlation_every_epochs": 400}
    arguments = command(tmp_path)
    (tmp_path / "spec.yaml").write_text(json.dumps(spec))
    filling = ranks.start(arguments, 1, tmp_path)
    wait_for(tmp_path / "run", "metrics", step=3)
    limit = (tmp_path / "run/attempts/0001/journal.jsonl").stat().st_size + 8000
    psutil.Process(filling[0].pid).rlimit(psutil.RLIMIT_FSIZE, (limit, limit))
    assert ranks.finish(filling) == [1], ranks.log(tmp_path)
    end = runs.outcome_of(tmp_path / "run")
    assert (end["outcome"], "journal.jsonl" in end["message"]) == ("crashed", True)
    assert end["message"].startswith("the disk is full")
    assert len(runs.events(tmp_path / "run")) > 3
    assert (tmp_path / "run/attempts/0001/journal.jsonl").read_bytes().endswith(b"}\n")


@pytest.mark.faults
def test_two_ranks_stopped_killed_and_resumed_equal_the_undisturbed_run(two_ranks, tmp_path):
    run = tmp_path / "run"
    stopped = ranks.start(command(tmp_path), 2, tmp_path)
    wait_for(run, "started")
    stopped[1].send_signal(signal.SIGTERM)  # any rank may hear it, all stop at the same step
    assert ranks.finish(stopped) == [0, 0], ranks.log(tmp_path)
    end = runs.outcome_of(run, 1)
    assert (end["outcome"], end["message"]) == ("stopped", f"stopped at step {end['step']}: signal")
    assert runs.events(run, 1, "stopped")[0].data["reason"] == "signal"
    assert not (run / "backbone").exists()

    killed = ranks.start(command(tmp_path), 2, tmp_path)
    wait_for(run, "metrics", step=random.randint(10, 30), attempt=2)
    killed[1].send_signal(signal.SIGKILL)  # the other one must not wait for it
    assert ranks.finish(killed) == [1, -signal.SIGKILL]
    end = runs.outcome_of(run, 2)
    assert end["outcome"] == "crashed"
    assert "another rank ended" in end["message"]
    assert runs.events(run, 2, "failed")[0].data["outcome"] == "crashed"

    _killed_while_writing(tmp_path, 2, seed=4)
    assert ranks.finish(ranks.start(command(tmp_path), 2, tmp_path)) == [0, 0], ranks.log(tmp_path)
    assert runs.resume_step(run, 2) == runs.outcome_of(run, 1)["step"]
    assert runs.resume_step(run, 3) >= 7
    _assert_equal(run, 4, two_ranks)
    names = ("backbone/model.safetensors", "backbone/config.json")  # published by rank 0
    assert all((run / name).read_bytes() == (two_ranks / name).read_bytes() for name in names)


def _assert_equal(resumed: Path, attempt: int, undisturbed: Path) -> None:
    """Every metric, parameter, statistic, the optimiser and each correlation record, to the last bit."""
    assert runs.series(resumed) == runs.series(undisturbed)
    for part in ("model", "optimizer"):
        ends = [runs.checkpoint(run, n, STEPS)[part] for run, n in ((resumed, attempt), (undisturbed, 1))]
        assert runs.same(*ends), part
    records = runs.correlations(undisturbed)
    assert records.keys() == {0, 25, STEPS}
    assert runs.same(runs.correlations(resumed), records)
    assert [w for n in range(1, attempt + 1) for w in runs.events(resumed, n, "warning")] == []
