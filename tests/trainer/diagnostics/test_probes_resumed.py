"""A probe that a stop cuts short is made by the attempt that goes on, and told once however that one ends. The
probes of one run are all of the same images."""

from __future__ import annotations

from pathlib import Path

import pytest
import runs
from odd_trees import make_split

from barlow_lab.outcome import Outcome
from trainer.diagnostics.probes import Probes
from trainer.pretraining import pretrain
from trainer.runtime.units import Stopped


def test_a_probe_made_anew_by_two_attempts_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = {"metrics_every_steps": 1, "correlation_every_epochs": 10, "probes": {"every_epochs": 1, "limit": 40}}
    spec = runs.spec(epochs=2, run={"checkpoint": {"every_epochs": 2}, "record": record})

    def stopped(probes: Probes, *_: object) -> dict[str, float]:
        raise Stopped

    def killed(*_: object, **more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Probes, "_look", stopped)
        assert pretrain(spec, runs.context(tmp_path, 1)).outcome == "stopped"
    with monkeypatch.context() as patch:
        patch.setattr("trainer.training.pace.Pace.report", killed)
        with pytest.raises(KeyboardInterrupt):
            pretrain(spec, runs.context(tmp_path, 2))
    assert pretrain(spec, runs.context(tmp_path, 3)).outcome == "ok"

    assert [runs.resume_step(tmp_path, attempt) for attempt in (2, 3)] == [5, 5]
    probed = {key for key in runs.series(tmp_path) if key[0] in ("knn_top1", "probe_top1")}
    assert probed == {(name, step) for name in ("knn_top1", "probe_top1") for step in (5, 10)}


def test_probes_do_not_go_on_with_other_images_and_training_does(tmp_path: Path) -> None:
    run, tree = tmp_path / "run", tmp_path / "tree"
    make_split(tree / "train", 24)
    make_split(tree / "test", 12)
    first = _attempt(run, tree, 1, stop_at=4)
    (tree / "test/class-2/011.png").rename(tree / "test/class-1/011.png")
    second = _attempt(run, tree, 2, stop_at=7)
    (tree / "test/class-1/011.png").rename(tree / "test/class-2/011.png")
    third = _attempt(run, tree, 3)
    assert [end.outcome for end in (first, second, third)] == ["stopped", "stopped", "ok"]
    assert [step for name, step in runs.series(run) if name == "knn_top1"] == [3, 9]
    told = [[e.data["message"] for e in runs.events(run, n, "warning") if "no more" in str(e)] for n in (1, 2, 3)]
    assert (told[0], told[2]) == ([], [])
    assert "images or labels of split 'test' are not those that the probes of this run began with" in told[1][0]
    was, other, now = (e.data["splits"] for n in (1, 2, 3) for e in runs.events(run, n, "data"))
    assert was == now
    assert [role for role in was if was[role] != other[role]] == ["probe_test"]
    assert third.result is not None
    assert third.result["data"] == {"name": "own", "split": "train", **was["train"]}


def test_a_checkpoint_that_does_not_name_the_images_of_its_probes_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_split(tmp_path / "tree/train", 24)
    make_split(tmp_path / "tree/test", 12)
    with monkeypatch.context() as patch:
        patch.setattr(Probes, "state_dict", lambda _: {"probed": 3})
        _attempt(tmp_path / "run", tmp_path / "tree", 1, stop_at=4)
    _attempt(tmp_path / "run", tmp_path / "tree", 2)
    assert [step for name, step in runs.series(tmp_path / "run") if name == "knn_top1"] == [3, 6, 9]


def _attempt(run: Path, tree: Path, number: int, stop_at: int | None = None) -> Outcome:
    """An attempt at 3 epochs of 3 steps with a probe after each, stopped when step `stop_at` is done."""
    record = {"metrics_every_steps": 1, "correlation_every_epochs": 10, "probes": {"every_epochs": 1, "k": 3}}
    context = runs.context(run, number)
    context.inputs = {"backbone": None, "data": {"own": {"format": "image_folder", "root": str(tree)}}}
    context.stop.requested = lambda at: at == stop_at  # type: ignore[method-assign]
    return pretrain(runs.spec(data={"name": "own"}, batch_size=8, epochs=3, run={"record": record}), context)
