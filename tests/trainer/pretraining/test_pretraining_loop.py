"""The loop in this process: what it journals, how it stops, resumes, passes over damage and survives divergence."""

import json
import math
import threading
import time
from pathlib import Path

import pytest
import runs
import torch
from odd_trees import make_split

from barlow_lab.specs import PretrainSpec, digest, load_spec_file, parse_spec
from trainer.data.datasets import FirstImages
from trainer.data.errors import DataError
from trainer.data.generated import textures
from trainer.data.registry import open_data_set
from trainer.failures import BadSpec
from trainer.models.exported import load_backbone
from trainer.pretraining import pretrain
from trainer.runtime import checkpoints
from trainer.training.step_plan import StepPlan

STEPS = 20
METRICS = {
    "loss", "on_diagonal", "off_diagonal", "noise_floor", "off_diagonal_excess", "correlation_diagonal_mean",
    "correlation_off_diagonal_rms", "grad_norm", "learning_rate", "images_per_second", "data_seconds", "step_seconds",
}  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("undisturbed")
    end = pretrain(runs.spec(), runs.context(folder))
    assert (end.outcome, end.step) == ("ok", STEPS)
    return folder


def test_a_run_journals_what_the_design_names(undisturbed):
    spec, events = runs.spec(), runs.events(undisturbed)
    started = next(e for e in events if e.kind == "started")
    assert started.data["spec_digest"] == digest(spec)
    assert started.data["resume_step"] == 0
    assert started.data["parameter_groups"]["matrices"]["tensors"] == 4 + 2
    assert started.data["parameter_groups"]["others"]["tensors"] == 8 + 2
    assert started.data["ranks"][0]["start_ticks"] > 0
    points = [e for e in events if e.kind == "metrics" and "loss" in e.data["values"]]
    assert [e.step for e in points] == list(range(1, STEPS + 1))
    assert [e.epoch for e in points] == [1] * 5 + [2] * 5 + [3] * 5 + [4] * 5
    for event in points:
        values = event.data["values"]
        assert set(values) == METRICS
        assert values["noise_floor"] == 16 * 15 / 31
        assert values["loss"] == pytest.approx(values["on_diagonal"] + 0.0051 * values["off_diagonal"], rel=1e-5)
    assert points[0].data["values"]["learning_rate"] == 0.0
    assert points[-1].data["values"]["loss"] < points[0].data["values"]["loss"]
    records = [e for e in events if e.kind == "correlation"]
    assert [(e.step, e.epoch) for e in records] == [(0, 0), (STEPS, 4)]
    for record in records:
        assert (undisturbed / "attempts/0001" / record.data["file"]).exists()
        assert (undisturbed / "attempts/0001" / record.data["image"]).exists()
    assert [e.step for e in events if e.kind == "metrics" and "effective_rank" in e.data["values"]] == [0, STEPS]
    (data,) = [e.data for e in events if e.kind == "data"]
    images = open_data_set("digits", "train", limit=160)
    splits = {"train": {"fingerprint": images.fingerprint, "images": len(images)}}
    assert data == {"name": "digits", "format": "built in", "splits": splits}
    image = next(e for e in events if e.kind == "image")
    assert (undisturbed / "attempts/0001" / image.data["file"]).stat().st_size > 1000
    phases = [e.data["phase"] for e in events if e.kind == "progress"]
    main = ["loading data", "building", "training", "exporting"]
    assert list(dict.fromkeys(p for p in phases if p in main)) == main
    assert {e.epoch for e in events if e.kind == "progress" and e.data["phase"] == "training"} == {1, 2, 3, 4}


def test_every_phase_tells_of_its_progress(tmp_path, monkeypatch):
    """Each unit of work does where the second between two events has gone by."""
    monkeypatch.setattr("trainer.runtime.context.PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(textures, "_opened", {})
    spec = runs.spec(data={"name": "textures", "limit": 160})
    with pytest.raises(_Killed):
        pretrain(spec, _killed_after(runs.context(tmp_path), 11))
    pretrain(spec, runs.context(tmp_path, 2))
    first, second = (runs.events(tmp_path, n, "progress") for n in (1, 2))
    assert len([e for e in first if e.data["phase"] == "loading data"]) == 1 + textures.SPLITS["train"]
    assert {e.data["phase"] for e in second} == {
        *("loading data", "building", "checking checkpoints", "resuming", "training", "correlation record"),
        *("information plane", "health", "checkpoint", "exporting"),
    }
    assert {(e.step, e.data["steps"]) for e in second if e.data["phase"] == "correlation record"} == {(20, 20)}


def test_checkpoints_are_named_and_journalled_and_under_a_worker_not_deleted(undisturbed):
    folder = undisturbed / "attempts/0001"
    events = [e for e in runs.events(undisturbed, kind="checkpoint") if e.data["checkpoint"] == "last"]
    assert [e.step for e in events] == [3, 5, 6, 9, 10, 12, 15, 18, 20]
    assert sorted(f"checkpoints/{p.name}" for p in (folder / "checkpoints").iterdir()) == [
        e.data["path"] for e in events
    ]
    assert all(e.data["deleted"] == [] and e.data["score"] is None for e in events)
    manifest = json.loads((folder / "checkpoints/step-00000020/manifest.json").read_text())
    assert (manifest["sha256"], manifest["bytes"]) == (events[-1].data["sha256"], events[-1].data["bytes"])
    assert manifest["spec"] == runs.spec().resolved()


def test_the_exported_backbone_is_the_trained_one(undisturbed):
    backbone = load_backbone(undisturbed / "attempts/0001/backbone").state_dict()
    trained = runs.checkpoint(undisturbed, 1, STEPS)["model"]
    assert all(torch.equal(tensor, trained[f"backbone.{name}"]) for name, tensor in backbone.items())


def test_asked_to_stop_it_writes_a_checkpoint_and_goes_on_to_the_same_end(undisturbed, tmp_path):
    end = pretrain(runs.spec(), _asked_to_stop_at(1, runs.context(tmp_path)))
    assert end.outcome == "stopped"
    assert (end.message, end.reason) == ("stopped at step 1: pause", "pause")
    assert [e.step for e in runs.events(tmp_path, kind="checkpoint")] == [1]
    assert pretrain(runs.spec(), runs.context(tmp_path, 2)).outcome == "ok"
    assert runs.resume_step(tmp_path, 2) == 1
    assert runs.series(tmp_path) == runs.series(undisturbed)
    for part in ("model", "optimizer"):
        assert runs.same(runs.checkpoint(tmp_path, 2, STEPS)[part], runs.checkpoint(undisturbed, 1, STEPS)[part])


def test_asked_to_stop_before_its_first_step_it_takes_none(tmp_path):
    first = runs.context(tmp_path)
    (first.attempt_folder / "control.json").write_text('{"stop": "preempt"}')
    end = pretrain(runs.spec(), first)
    assert (end.outcome, end.message, end.step) == ("stopped", "stopped at step 0: preempt", 0)
    assert not (first.attempt_folder / "checkpoints").exists()


def test_a_damaged_newest_checkpoint_is_passed_over(undisturbed, tmp_path):
    spec = runs.spec()
    with pytest.raises(_Killed):
        pretrain(spec, _killed_after(runs.context(tmp_path), 11))
    state = tmp_path / "attempts/0001/checkpoints/step-00000010/state.pt"
    damaged = bytearray(state.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    state.write_bytes(damaged)
    (tmp_path / "attempts/0001/checkpoints/.step-00000012.tmp").mkdir()
    assert pretrain(spec, runs.context(tmp_path, 2)).outcome == "ok"
    assert runs.resume_step(tmp_path, 2) == 9
    warnings = runs.events(tmp_path, 2, "warning")
    assert [w.data["checkpoint"] for w in warnings] == ["attempts/0001/checkpoints/step-00000010"]
    assert "not the file that was written" in warnings[0].data["message"]
    assert runs.series(tmp_path) == runs.series(undisturbed)


def test_with_nothing_left_to_do_a_resumed_run_exports_the_same_backbone(undisturbed, tmp_path):
    (tmp_path / "attempts").mkdir()
    (tmp_path / "attempts/0001").symlink_to(undisturbed / "attempts/0001")
    end = pretrain(runs.spec(), runs.context(tmp_path, 2))
    assert end.outcome == "ok"
    assert end.result is not None
    diagnosed = {"effective_rank", "rankme", "feature_spread", "directions_99", "alpha_req"}
    # 32 images show entropies of the 16 features of the embedding, and not of 32 directions of the backbone's.
    of_information = {"entropy_embedding", "conditional_entropy_embedding", "information_embedding"}
    assert set(end.result["metrics"]) == METRICS | diagnosed | of_information
    exported = [
        p / "attempts" / n / "backbone/model.safetensors" for p, n in ((tmp_path, "0002"), (undisturbed, "0001"))
    ]
    assert exported[0].read_bytes() == exported[1].read_bytes()


def test_a_checkpoint_of_another_spec_is_refused(undisturbed, tmp_path):
    (tmp_path / "attempts").mkdir()
    (tmp_path / "attempts/0001").symlink_to(undisturbed / "attempts/0001")
    with pytest.raises(BadSpec, match="use another --run-dir"):
        pretrain(runs.spec(seed=1), runs.context(tmp_path, 2))


def test_the_loop_runs_ahead_of_a_slow_disk_and_the_checkpoint_is_of_its_step(undisturbed, tmp_path, monkeypatch):
    write = checkpoints.write_checkpoint

    def slow(*given, step, **named):
        deadline = time.monotonic() + 20
        while step < STEPS and max(e.step for e in runs.events(tmp_path, kind="metrics")) <= step:
            assert time.monotonic() < deadline, f"no step after {step} while its checkpoint is written"
            time.sleep(0.001)
        return write(*given, step=step, **named)

    monkeypatch.setattr(checkpoints, "write_checkpoint", slow)
    assert pretrain(runs.spec(), runs.context(tmp_path)).outcome == "ok"
    assert runs.series(tmp_path) == runs.series(undisturbed)
    steps = [e.step for e in runs.events(undisturbed, kind="checkpoint")]
    assert [e.step for e in runs.events(tmp_path, kind="checkpoint")] == steps
    for step in steps[:-1]:
        for part in ("model", "optimizer"):
            assert runs.same(*(runs.checkpoint(run, 1, step)[part] for run in (tmp_path, undisturbed))), step
    newest = 0
    for event in runs.events(tmp_path):
        if event.kind in ("metrics", "correlation"):
            newest = event.step
        elif event.kind == "checkpoint" and event.step < STEPS:
            assert newest > event.step, "behind a line of a later step, so behind all those of its own"


def test_a_checkpoint_that_cannot_be_written_ends_the_run_at_the_next_step(tmp_path, monkeypatch):
    write, ahead = checkpoints.write_checkpoint, threading.Event()

    def failing(*given, step, **named):
        if step == 10:
            assert ahead.wait(20)
            raise OSError(28, "No space left on device", "state.pt")
        return write(*given, step=step, **named)

    def requested(step):
        if step == 11:
            ahead.set()
            _await_checkpoint()
        return False

    monkeypatch.setattr(checkpoints, "write_checkpoint", failing)
    context = runs.context(tmp_path)
    monkeypatch.setattr(context.stop, "requested", requested)
    with pytest.raises(OSError, match="No space left"):
        pretrain(runs.spec(run={"checkpoint": {"every_epochs": 1}}), context)
    assert context.step == 11
    assert [e.step for e in runs.events(tmp_path, kind="checkpoint")] == [5]


def test_seeds_and_views_decide_the_run(tmp_path, undisturbed):
    pretrain(runs.spec(seed=1, max_steps=2), runs.context(tmp_path))
    one, other = runs.series(tmp_path), runs.series(undisturbed)
    assert one["loss", 1] != other["loss", 1]


def test_a_warm_up_that_max_steps_cuts_off_is_said(tmp_path):
    pretrain(runs.spec(max_steps=2, optimizer={"name": "adamw", "warmup_epochs": 1}), runs.context(tmp_path))
    (warning,) = runs.events(tmp_path, kind="warning")
    assert warning.data["message"] == "the warm-up of 5 steps does not end within the 2 steps of this run"


def test_bf16_stays_near_fp32(tmp_path, undisturbed):
    pretrain(runs.spec(precision="bf16", max_steps=3), runs.context(tmp_path))
    loss, exact = runs.series(tmp_path)["loss", 1], runs.series(undisturbed)["loss", 1]
    assert loss != exact
    assert math.isclose(loss, exact, rel_tol=0.02)


def test_what_is_due_when():
    spec = runs.spec(run={"checkpoint": {"every_epochs": 2, "every_steps": 7}, "record": {"metrics_every_steps": 4}})
    plan = StepPlan(steps=18, steps_per_epoch=5, spec=spec)
    assert plan.epochs == 4
    assert [s for s in range(1, 19) if plan.metrics_due(s)] == [4, 8, 12, 16, 18]
    assert [s for s in range(1, 19) if plan.checkpoint_due(s)] == [7, 10, 14, 18]
    assert [due for s in range(1, 19) for due in plan.correlations_due(s)] == [0, 5, 10, 15, 18]
    assert [plan.epoch(s) for s in (1, 5, 6, 18)] == [1, 1, 2, 4]


def test_the_recipe_for_a_laptop_runs(tmp_path):
    recipe = load_spec_file(Path(__file__).parents[3] / "recipes/digits.yaml")
    spec = parse_spec({**recipe, "max_steps": 3, "data": {"name": "digits", "limit": 128}})
    assert isinstance(spec, PretrainSpec)
    assert pretrain(spec, runs.context(tmp_path)).outcome == "ok"
    loss = {step: value for (name, step), value in runs.series(tmp_path).items() if name == "loss"}
    assert 0 < loss[3] < 256


class _Killed(BaseException):
    """The process is gone."""


def _asked_to_stop_at(step, context):
    """The context, whose control.json asks for a pause when `step` is done."""
    asked = context.stop.requested

    def requested(at: int) -> bool:
        if at == step:
            (context.attempt_folder / "control.json").write_text('{"stop": "pause"}')
        return asked(at)

    context.stop.requested = requested
    return context


def _killed_after(context, step):
    """The context, with an end as sudden as this process can have it: at the end of `step`, a checkpoint or not."""
    asked = context.stop.requested

    def requested(at: int) -> bool:
        if at == step:
            _await_checkpoint()  # its thread would outlive the attempt
            raise _Killed
        return asked(at)

    context.stop.requested = requested
    return context


def _await_checkpoint():
    """Wait for the checkpoint under way, without a look at what became of it."""
    for thread in threading.enumerate():
        if thread.name == "checkpoint":
            thread.join()


def test_a_run_does_not_go_on_with_other_files(tmp_path, monkeypatch):
    pretrain(runs.spec(), _asked_to_stop_at(1, runs.context(tmp_path)))
    monkeypatch.setattr(FirstImages, "fingerprint", property(lambda _: "another", lambda *_: None), raising=False)
    with pytest.raises(DataError, match=r"not those that this run began with: .* or this version reads them otherwise"):
        pretrain(runs.spec(), runs.context(tmp_path, 2))


def test_images_that_cannot_be_read_are_told_once_and_counted_over_all_attempts(tmp_path):
    make_split(tmp_path / "tree/train", 40, range(0, 40, 4))
    spec = runs.spec(data={"name": "own"}, batch_size=8)

    def attempt(run: Path, number: int = 1):
        context = runs.context(run, number)
        context.inputs = {"backbone": None, "data": {"own": {"format": "image_folder", "root": str(tmp_path / "tree")}}}
        return context

    def told(run: Path, number: int) -> set[str]:
        warned = runs.events(run, number, "warning")
        return {e.data["message"].split(" cannot")[0] for e in warned if "unreadable" in e.data}

    undisturbed = pretrain(spec, attempt(tmp_path / "undisturbed"))
    pretrain(spec, _asked_to_stop_at(1, attempt(tmp_path / "stopped")))
    resumed = pretrain(spec, attempt(tmp_path / "stopped", 2))
    assert undisturbed.result is not None
    assert resumed.result is not None
    assert undisturbed.result["backbone"] == resumed.result["backbone"]
    assert undisturbed.result["unreadable_images"] == resumed.result["unreadable_images"]
    assert undisturbed.result["unreadable_images"] == 10
    first, second = (told(tmp_path / "stopped", number) for number in (1, 2))
    assert len(first) > 0 < len(second)
    assert not first & second
    assert first | second == told(tmp_path / "undisturbed", 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"micro_batch": 2}, "each of 2 ranks the same number of images, at least 2; use a multiple of 2 from 4 on"),
        ({"batch_size": 33}, "batch_size 33 is global and 2 ranks do not divide it; use 32 or 34"),
    ],
)
def test_other_ranks_than_the_spec_has_slots_share_by_its_rules(tmp_path, changes, said):
    with pytest.raises(BadSpec, match=said):
        pretrain(runs.spec(**changes), runs.context(tmp_path, world_size=2))
