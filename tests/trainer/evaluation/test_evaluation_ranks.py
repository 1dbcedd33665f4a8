"""Evaluations that train, on two real ranks: the parameters and words of one; killed, and resumed to the bit."""

import json
import signal

import labelled_runs
import numpy as np
import pytest
import ranks
import runs
from fifty_steps import wait_for
from PIL import Image

EPOCHS, STEPS_PER_EPOCH = 3, 5
DAMAGED = {"train": {3, 4, 21, 39}, "test": {0, 11}}


def noise(folder):
    """40 training and 17 test images of which no two are alike, some of them cut short."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 17)):
        for number in range(count):
            path = folder / split / f"class-{number % 6}" / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            low = 20 * (number % 6)
            Image.fromarray(generator.integers(low, low + 150, (14, 11, 3), np.uint8)).save(path)
            if number in DAMAGED[split]:
                path.write_bytes(path.read_bytes()[:39] + bytes([number]))
    return folder


def spec(kind, **changes):
    labels = {"labels": {"percent": 100}} if kind == "semi_supervised" else {}
    more = {"epochs": EPOCHS, "learning_rate": 2.0, "weight_decay": 0.01, "images": {"size": 12, "resize": 12}}
    return labelled_runs.spec(kind, **{**more, **labels, **changes})


def start(folder, kind, tree, count, run="run"):
    (folder / "spec.json").write_text(json.dumps(spec(kind).resolved()))
    command = ["-m", "trainer", folder / "spec.json", "--run-dir", folder / run, "--data", f"own={tree}"]
    return ranks.start(command, count, folder)


@pytest.mark.long
@pytest.mark.parametrize("kind", labelled_runs.KINDS)
def test_two_ranks_come_to_the_parameters_of_one(tmp_path, kind):
    tree = noise(tmp_path / "tree")
    processes = start(tmp_path, kind, tree, 2)
    context = labelled_runs.context(tmp_path / "alone", tree)
    alone = labelled_runs.run_evaluation(spec(kind), context)
    assert ranks.finish(processes) == [0, 0], ranks.log(tmp_path)
    end = runs.outcome_of(tmp_path / "run")
    assert end["message"] == f"{kind}: top1 {alone['scores']['top1']['last']:.1f} % of 15 test images"
    assert end["result"] == alone
    assert alone["data"]["unreadable"] == {"train": 4, "test": 2}
    steps = EPOCHS * STEPS_PER_EPOCH
    ours, right = (runs.checkpoint(folder, 1, steps)["fit"] for folder in (tmp_path / "run", tmp_path / "alone"))
    first = runs.checkpoint(tmp_path / "alone", 1, 3)["fit"]["model"]
    for name, tensor in right["model"].items():
        assert (ours["model"][name] - tensor).abs().max() <= 1e-8 * tensor.abs().max(), name
        assert not runs.same(first[name], tensor), name  # it was trained
    assert ours["unreadable"] == right["unreadable"]
    series, series_alone = runs.series(tmp_path / "run"), runs.series(tmp_path / "alone")
    assert series == pytest.approx(series_alone, rel=1e-8)
    said, said_alone = (
        sorted(e.data["message"].split(";")[0].split(". The")[0] for e in runs.events(folder, kind="warning"))
        for folder in (tmp_path / "run", tmp_path / "alone")
    )
    assert said == said_alone
    assert len(said) == 5  # four of the training, each once, and those of the test together


@pytest.mark.faults
@pytest.mark.parametrize("kind", labelled_runs.KINDS)
def test_two_ranks_one_of_which_is_killed_go_on_to_the_bits_of_the_undisturbed_run(tmp_path, kind):
    tree = noise(tmp_path / "tree")
    assert ranks.finish(start(tmp_path, kind, tree, 2, "whole")) == [0, 0], ranks.log(tmp_path)
    doomed = start(tmp_path, kind, tree, 2)
    wait_for(tmp_path / "run", "metrics", step=7)
    doomed[1].send_signal(signal.SIGKILL)
    assert ranks.finish(doomed)[1] == -signal.SIGKILL
    assert ranks.finish(start(tmp_path, kind, tree, 2)) == [0, 0], ranks.log(tmp_path)
    last = EPOCHS * STEPS_PER_EPOCH
    assert runs.outcome_of(tmp_path / "run", 2)["result"] == runs.outcome_of(tmp_path / "whole")["result"]
    assert runs.series(tmp_path / "run") == runs.series(tmp_path / "whole")
    ours, right = runs.checkpoint(tmp_path / "run", 2, last), runs.checkpoint(tmp_path / "whole", 1, last)
    assert runs.same(ours, right)
