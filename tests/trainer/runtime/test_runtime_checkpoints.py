"""Checkpoints, stop requests, outcomes: the parts of the runtime alone."""

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ranks
import runs
import torch

from barlow_lab import outcome
from barlow_lab import run_folder as folders
from barlow_lab.outcome import Outcome
from barlow_lab.specs import digest, parse_spec
from barlow_lab.specs.common import CheckpointSpec
from trainer import by_hand
from trainer.data.errors import DataError
from trainer.failures import BadSpec, Diverged, of_exception
from trainer.runtime import checkpoints, stopping
from trainer.runtime.context import Context
from trainer.runtime.resuming import agree_on_checkpoint
from trainer.runtime.stopping import StopRequests


def _write(context: Context, step: int, digest: str = "d" * 64) -> Path:
    return checkpoints.write_checkpoint(
        context,
        {"weights": torch.full((3,), float(step))},
        step=step,
        epoch=1,
        spec={},
        spec_digest=digest,
        policy=CheckpointSpec(keep_last=9),
        milestone=False,
        metrics={},
    )


def test_what_was_written_is_read_and_nothing_in_it_is_executed(tmp_path):
    folder = _write(runs.context(tmp_path), 3)
    assert torch.equal(checkpoints.read_state(folder, torch.device("cpu"))["weights"], torch.full((3,), 3.0))
    torch.save({"path": Path("x")}, folder / "state.pt")
    with pytest.raises(Exception, match="weights_only"):
        checkpoints.read_state(folder, torch.device("cpu"))


def test_the_newest_of_all_earlier_attempts_counts_but_none_of_this_or_a_later_one(tmp_path):
    _write(runs.context(tmp_path, 1), 9)
    newest = _write(runs.context(tmp_path, 2), 12)
    third = runs.context(tmp_path, 3)
    _write(third, 15)
    _write(runs.context(tmp_path, 4), 20)
    assert agree_on_checkpoint(third, "d" * 64) == newest


def test_a_checkpoint_of_another_spec_is_refused(tmp_path):
    _write(runs.context(tmp_path, 1), 9)
    with pytest.raises(BadSpec, match="another spec"):
        agree_on_checkpoint(runs.context(tmp_path, 2), "e" * 64)


def test_a_leftover_of_a_killed_writer_is_no_checkpoint_and_no_obstacle(tmp_path):
    context = runs.context(tmp_path)
    leftover = context.attempt_folder / "checkpoints/.step-00000003.tmp"
    leftover.mkdir(parents=True)
    (leftover / "state.pt").write_bytes(b"half")
    successor = runs.context(tmp_path, 2)
    assert agree_on_checkpoint(successor, "d" * 64) is None
    assert agree_on_checkpoint(successor, "d" * 64) is None
    written = _write(context, 3)
    assert agree_on_checkpoint(successor, "d" * 64) == written


def test_stop_requests_are_looked_for_about_once_a_second_of_steps(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: clock[0])
    control = tmp_path / "control.json"
    stop = StopRequests(control, rank=0, device=torch.device("cpu"))
    looked = []
    read = stop._read
    monkeypatch.setattr(stop, "_read", lambda: (looked.append(step), read())[1])
    for step in range(1, 101):
        assert not stop.requested(step)
        clock[0] += 0.1
    assert looked == [1, 2, *range(12, 101, 10)]
    control.write_text('{"stop": "drain"}')
    assert [stop.requested(step) for step in range(101, 104)] == [False, True, True]
    assert stop.reason == "drain"


@pytest.mark.parametrize("reason", stopping.REASONS)
def test_every_reason_is_understood(tmp_path, reason):
    control = tmp_path / "control.json"
    control.write_text(json.dumps({"stop": reason}))
    stop = StopRequests(control, rank=0, device=torch.device("cpu"))
    assert stop.requested(1)
    assert stop.reason == reason


@pytest.mark.parametrize("text", ["", '{"stop"', '{"stop": "now"}', "{}", "[]", "\x00" * 17, '{"stop": ["drain"]}'])
def test_a_control_file_that_says_nothing_is_said_once_and_passed_over(tmp_path, capsys, text):
    control = tmp_path / "control.json"
    control.write_text(text)
    stop = StopRequests(control, rank=0, device=torch.device("cpu"))
    assert not any(stop.requested(step) for step in range(1, 4))
    assert capsys.readouterr().err.count("control.json is passed over") == 1
    control.write_text('{"stop": "preempt"}')
    stop._next_step = None
    assert stop.requested(4)
    assert stop.reason == "preempt"


def test_of_two_reasons_the_later_in_the_table_wins():
    assert stopping.REASONS == ("signal", "lease", "drain", "preempt", "pause", "cancel")


def _raised_by(call) -> Exception:
    try:
        call()
    except Exception as error:
        return error
    pytest.fail("nothing was raised")


def test_outcomes_of_exceptions():
    cases = [
        (BadSpec("lower batch_size"), "bad_spec", "lower batch_size"),
        (DataError("image 7"), "bad_data", "image 7"),
        (Diverged("step 9", 9), "diverged", "step 9"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory", "lower batch_size or views.size"),
        (_raised_by(lambda: torch.empty(10**15)), "out_of_memory", "lower batch_size or views.size"),
        (OSError(28, "No space left on device", "state.pt"), "crashed", "the disk is full, or a limit on it"),
        (RuntimeError("Connection closed by peer [127.0.0.1]"), "crashed", "another rank ended"),
        (KeyError("x"), "crashed", "KeyError: 'x'"),
        (KeyboardInterrupt(), "crashed", "KeyboardInterrupt"),
    ]
    for error, name, message in cases:
        found = of_exception(error, step=4)
        assert found.outcome == name
        assert message in found.message
        assert found.step == (9 if name == "diverged" else 4)
        assert found.error_class == type(error).__name__
    with pytest.raises(Exception, match="kind") as caught:
        parse_spec({})
    assert of_exception(caught.value).outcome == "bad_spec"


def test_the_first_outcome_stands(tmp_path, monkeypatch):
    monkeypatch.setenv("BARLOW_ATTEMPT_TOKEN", "t")
    assert outcome.read(tmp_path) is None
    assert outcome.publish(tmp_path, Outcome("bad_data", "image 7"))
    assert not outcome.publish(tmp_path, Outcome("crashed", "connection closed by peer"))
    assert outcome.read(tmp_path) == {
        "outcome": "bad_data", "message": "image 7", "error_class": None, "traceback": None, "token": "t",
        "step": None, "result": None, "backbone": None, "reason": None,
    }  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == ["outcome.claim", "outcome.json"]


def test_by_hand_attempts_count_up_and_another_spec_is_refused(tmp_path):
    run, spec = tmp_path / "run", runs.spec()
    assert by_hand.begin(run, spec, None) == 1
    assert by_hand.begin(run, runs.spec(name="renamed", run={"priority": 3}), None) == 2  # same science
    assert digest(parse_spec(json.loads((run / "spec.json").read_text()))) == digest(spec)
    assert folders.read_inputs(run / "attempts/0002") == {"backbone": None, "data": {"digits": None}}
    with pytest.raises(BadSpec, match="use another --run-dir"):
        by_hand.begin(run, runs.spec(seed=3), None)


def test_by_hand_what_is_not_an_attempt_is_passed_by(tmp_path):
    """A user sets a folder aside and goes on."""
    written = _write(runs.context(tmp_path, 1), 9)
    (tmp_path / "attempts/0007.bad").mkdir()
    (tmp_path / "attempts/.DS_Store").touch()
    assert by_hand.begin(tmp_path, runs.spec(), None) == 2
    assert agree_on_checkpoint(runs.context(tmp_path, 3), "d" * 64) == written


def test_by_hand_an_unreadable_spec_in_the_run_directory_is_named(tmp_path):
    (tmp_path / "spec.json").write_text('{"kind": ')
    with pytest.raises(BadSpec, match=r"spec\.json is not a spec .* use another --run-dir"):
        by_hand.begin(tmp_path, runs.spec(), None)


def test_by_hand_a_run_directory_is_one_process_s(tmp_path):
    run = tmp_path / "run"
    script = (
        "import sys; from pathlib import Path; from trainer.by_hand import hold;"
        "hold(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(run)]
    other = subprocess.Popen(command, env=ranks.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    with pytest.raises(BadSpec, match=r"another process is at work in .*use another --run-dir"):
        by_hand.hold(run)
    other.kill()
    other.communicate()
    by_hand.hold(run)


def test_by_hand_a_backbone_that_the_spec_would_not_look_at_is_refused(tmp_path):
    fields = {"kind": "knn", "data": "digits", "backbone": {"name": "tiny"}, "backbone_from": {"random": 0}}
    for spec in (runs.spec(), parse_spec(fields)):
        with pytest.raises(BadSpec, match="leave --backbone out"):
            by_hand.begin(tmp_path / spec.kind, spec, tmp_path)


def test_by_hand_a_backbone_is_a_published_one_or_a_checkpoint(tmp_path):
    published, saved = tmp_path / "backbone", _write(runs.context(tmp_path / "other"), 3)
    published.mkdir()
    knn = parse_spec({"kind": "knn", "data": "digits", "backbone_from": {"job": "p"}})
    with pytest.raises(BadSpec, match=r"no published backbone .* and no checkpoint folder"):
        by_hand.begin(tmp_path / "run", knn, published)
    assert not (tmp_path / "run/attempts").exists()
    (published / "config.json").write_text('{"sha256": "abc"}')
    for folder, expected in (
        (published, {"path": str(published), "sha256": "abc"}),
        (saved, {"checkpoint": str(saved), "sha256": checkpoints.read_manifest(saved).sha256}),
    ):
        attempt = by_hand.begin(tmp_path / "run", knn, folder)
        inputs = folders.read_inputs(folders.attempt_folder(tmp_path / "run", attempt))
        assert inputs["backbone"] == expected


def test_progress_speaks_at_most_once_a_second_but_of_every_phase(tmp_path, monkeypatch):
    context = runs.context(tmp_path)
    for step in range(50):
        context.progress("loading", step=step, steps=50)
    context.progress("training", step=1, steps=9, loss=float("nan"), eta_seconds=None)
    context.progress("training", step=2, steps=9, always=True)
    time.sleep(1.05)
    context.progress("training", step=3, steps=9, images_per_second=12.0)
    told = runs.events(tmp_path, kind="progress")
    assert [(e.data["phase"], e.step) for e in told] == [
        ("loading", 0),
        ("training", 1),
        ("training", 2),
        ("training", 3),
    ]
    assert told[1].data == {"phase": "training", "steps": 9, "epochs": None}
    assert told[3].data["images_per_second"] == 12.0


def test_of_threads_that_speak_at_once_one_is_heard(tmp_path, monkeypatch):
    """The loop and the thread that writes its checkpoint."""

    class SlowClock:
        @staticmethod
        def monotonic():
            time.sleep(0.005)
            return time.monotonic()

    context, meet = runs.context(tmp_path), threading.Barrier(4)
    monkeypatch.setattr("trainer.runtime.context.time", SlowClock)

    def speak(phase):
        meet.wait(20)
        context.working(phase)

    with ThreadPoolExecutor(4) as all_of_them:
        list(all_of_them.map(speak, ["checkpoint", "training"] * 2))
    assert len(runs.events(tmp_path, kind="progress")) == 1
