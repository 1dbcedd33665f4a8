"""The population of a pretraining: what it sees, that it changes nothing, and that a stop costs none of it. On ranks:
test_runtime_ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import torch

from barlow_lab.specs import PretrainSpec, SpecError, digest, parse_spec
from trainer.data.keyed import Purpose
from trainer.data.pixels import normalise
from trainer.data.registry import open_images
from trainer.data.views import augmentation
from trainer.diagnostics.population import Population
from trainer.evaluation.view_pass import drawn_images
from trainer.failures import BadSpec
from trainer.optim.schedules import Schedule
from trainer.pretraining import pretrain
from trainer.train_state import TrainState

NAMES = set(Population.metric_names)


def asking(asked: dict[str, Any] | None, **changes: Any) -> PretrainSpec:
    """2 epochs of 5 steps, of 160 images; `asked` None: without."""
    record = {"metrics_every_steps": 1, "correlation_every_epochs": 1, "spectra": True, "population": asked}
    return runs.spec(epochs=2, run={"checkpoint": {"every_steps": 5}, "record": record}, **changes)


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("looked")
    torch.manual_seed(3)
    assert pretrain(asking({"images": 100}), runs.context(folder)).outcome == "ok"
    torch.save(torch.get_rng_state(), folder / "generator.pt")
    return folder


def found(folder: Path) -> dict[tuple[str, int], float]:
    return {place: value for place, value in runs.series(folder).items() if place[0] in NAMES}


def test_a_run_is_the_same_with_and_without_to_the_last_bit(looked: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    assert pretrain(asking(None), runs.context(tmp_path)).outcome == "ok"
    assert torch.equal(torch.get_rng_state(), torch.load(looked / "generator.pt"))
    assert set(found(looked)) == {(name, step) for name in NAMES for step in (5, 10)}
    assert not found(tmp_path)
    others = [runs.series(folder).items() - found(folder).items() for folder in (looked, tmp_path)]
    assert others[0] == others[1]
    for step in (5, 10):
        for part in ("model", "optimizer"):
            assert runs.same(*(runs.checkpoint(run, 1, step)[part] for run in (looked, tmp_path)))
    assert digest(asking({})) == digest(asking(None))


def test_what_is_recorded_is_of_the_views_of_the_images_drawn(looked: Path) -> None:
    """Against each view made by itself, the network of the checkpoint in evaluation mode, and NumPy."""
    spec, dataset = asking({"images": 100}), open_images("digits", "train", limit=160)
    state = TrainState(spec, Schedule(1, 10, 0.0), torch.device("cpu"))
    state.load_state_dict(runs.checkpoint(looked, 1, 10))
    model, places = state.model.eval(), drawn_images(160, 100, seed=spec.seed)
    assert len(set(places.tolist())) == 100
    rows = []
    for view_id, view in enumerate((spec.views.a, spec.views.b)):
        made = []
        for place in places.tolist():
            image = dataset.image(place)
            height, width = image.shape[:2]
            parameters = augmentation.sample(
                view, seed=spec.seed, epoch=0, index=place, view_id=view_id, height=height, width=width,
                purpose=Purpose.SAMPLE_VIEW,
            )  # fmt: skip
            made.append(augmentation.apply(image, parameters, spec.views.size))
        with torch.no_grad():
            pixels = normalise(torch.from_numpy(np.stack(made)), torch.float32)
            rows.append(model["projector"](model["backbone"](pixels)).double().numpy())
    c = np.corrcoef(rows[0].T, rows[1].T)[:16, 16:]
    off = c[~np.eye(16, dtype=bool)]
    told = found(looked)
    assert told["population_images", 10] == 100
    assert told["population_diagonal_mean", 10] == pytest.approx(np.diag(c).mean(), abs=1e-5)
    assert told["population_off_diagonal", 10] == pytest.approx(np.square(off).sum(), rel=1e-4)
    assert told["population_off_diagonal_rms", 10] == pytest.approx(np.square(off).mean() ** 0.5, rel=1e-4)
    assert told["population_off_diagonal_floor", 10] == 16 * 15 / 99
    defect = np.sqrt(np.square(c - c.T).sum() / (2 * np.square(off).sum()))
    assert told["population_symmetry_defect", 10] == pytest.approx(defect, rel=1e-3)
    pairs = 16 * 15 - (np.diag(c).sum() ** 2 - np.square(np.diag(c)).sum())
    floor = np.sqrt(pairs / 99 / np.square(off).sum())
    assert told["population_symmetry_defect_floor", 10] == pytest.approx(floor, rel=1e-3)
    for name in ("diagonal_mean_error", "off_diagonal_error", "entry_error", "symmetry_defect_noise"):
        assert told[f"population_{name}", 10] > 0
    folder = looked / "attempts/0001/population"
    with np.load(folder / "step-00000010.npz", allow_pickle=False) as arrays:
        np.testing.assert_allclose(arrays["correlation"].astype(float), c, atol=2e-3)
        np.testing.assert_allclose(arrays["spectrum"], np.linalg.svd(c, compute_uv=False), atol=1e-4)
        for name, view in zip(("spectrum_a", "spectrum_b"), rows, strict=True):
            np.testing.assert_allclose(arrays[name], np.linalg.eigvalsh(np.corrcoef(view.T))[::-1], atol=1e-4)
        assert int(arrays["n"]) == 100
    pictures = [(e.step, e.data["key"]) for e in runs.events(looked, kind="image") if "population" in e.data["key"]]
    assert pictures == [(step, key) for step in (5, 10) for key in ("population", "population-spectrum")]


def test_a_stop_within_a_look_is_heeded_and_the_next_attempt_looks_once(
    looked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = runs.context(tmp_path)
    asked = context.stop.requested_now
    pieces = []

    def requested_now() -> bool:
        pieces.append(1)
        if len(pieces) == 9:
            (context.attempt_folder / "control.json").write_text('{"stop": "pause"}')
        return asked()

    monkeypatch.setattr(context.stop, "requested_now", requested_now)
    end = pretrain(asking({"images": 100}), context)
    assert (end.outcome, end.step) == ("stopped", 5)
    assert pretrain(asking({"images": 100}), runs.context(tmp_path, 2)).outcome == "ok"
    assert runs.series(tmp_path) == runs.series(looked)


def test_an_interval_of_its_own_all_images_and_a_look_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*given: Any, **named: object) -> None:
        raise BadSpec(f"features of {len(given[3])} images are not finite")

    monkeypatch.setattr("trainer.diagnostics.population.stream_views", failing)
    spec = asking({"images": 5000, "every_epochs": 2})
    assert pretrain(spec, runs.context(tmp_path)).outcome == "ok"
    warned = [event.data["message"] for event in runs.events(tmp_path, kind="warning")]
    assert warned == ["no population at step 10: features of 160 images are not finite"]


def test_too_few_images_are_refused_where_they_are_asked_for() -> None:
    given = asking({}).resolved()
    evaluation = {"kind": "knn", "data": "digits", "backbone_from": {"pixels": True}}
    for spec, place, said in (
        ({**given, "data": {"name": "digits", "limit": 50}}, "/run/record/population", "50 images are too few"),
        (asking({}).resolved() | {"run": {"record": {"population": {"images": 63}}}}, "/run/record/population/images",
         "greater than or equal to 64"),
        ({**evaluation, "run": {"record": {"population": {}}}}, "/run/record/population", "an evaluation has none"),
    ):  # fmt: skip
        with pytest.raises(SpecError) as refused:
            parse_spec(spec)
        assert [(fault.pointer, said in fault.message) for fault in refused.value.faults] == [(place, True)]
    assert isinstance(parse_spec(given), PretrainSpec)
    (fault,) = asking({}, batch_size=16, data={"name": "digits"}).faults_of_size(40, None, "split train")
    assert fault.pointer == "/run/record/population"


def test_a_data_set_that_is_too_small_is_told_before_the_first_step(tmp_path: Path) -> None:
    spec = asking({"images": 64}, batch_size=16)
    small = spec.model_copy(update={"data": spec.data.model_copy(update={"limit": 40})})
    with pytest.raises(BadSpec, match=r"run\.record\.population: 40 images are too few .* at least 64"):
        pretrain(small, runs.context(tmp_path))
