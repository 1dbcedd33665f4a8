"""The closed form: hand-worked matrices, whole runs against NumPy, and what is refused. On ranks: test_runtime_ranks.

Shape suffixes: n images, d features, k of them kept.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import torch
from PIL import Image

from barlow_lab.specs import SpecError, common, digest, parse_spec
from trainer.data.errors import DataError
from trainer.data.registry import open_images
from trainer.evaluation import closed_form, run_evaluation
from trainer.evaluation.closed_form import Reached, solve, views_drawn
from trainer.evaluation.view_moments import ViewMoments
from trainer.evaluation.view_pass import drawn_images, stream_views
from trainer.failures import BadSpec
from trainer.runtime.units import Units

SMALL: dict[str, Any] = {
    "kind": "closed_form", "data": "digits", "views": {"preset": "grayscale", "size": 8}, "samples": 160,
    "held_out": 96, "backbone_from": {"random": 0}, "backbone": {"name": "tiny"}, "batch_size": 64,
}  # fmt: skip
PIXELS: dict[str, Any] = {**SMALL, "backbone_from": {"pixels": True}, "backbone": None}


def run(folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    result = run_evaluation(parse_spec(spec), runs.context(folder))  # type: ignore[arg-type]
    assert result is not None
    return result


def arrays(folder: Path) -> dict[str, np.ndarray]:
    (path,) = folder.glob("attempts/0001/closed-form/*.npz")
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def test_hand_worked_solutions() -> None:
    s_dd = torch.diag(torch.tensor([4.0, 1.0, 1e-6, -0.1], dtype=torch.float64))
    found = solve(s_dd, 1e-3)
    np.testing.assert_allclose(found.projector_kd.abs(), [[0.5, 0, 0, 0], [0, 1, 0, 0]], atol=1e-15)
    assert found.eigenvalues_d.tolist() == pytest.approx([4.0, 1.0, 1e-6, -0.1])
    assert len(solve(s_dd, 1e-8).projector_kd) == 3
    # [[2, 1], [1, 2]] has 3 along (1, 1) and 1 along (1, -1); what is not symmetric of S is no part of it.
    skew = torch.tensor([[2.0, 1.3], [0.7, 2.0]], dtype=torch.float64)
    found = solve(skew, 1e-3)
    assert found.eigenvalues_d.tolist() == pytest.approx([3.0, 1.0])
    matrix_kk = found.projector_kd @ skew @ found.projector_kd.mT
    # It stays in C: 0.3 / sqrt(3 * 1), with both signs.
    np.testing.assert_allclose((matrix_kk - torch.eye(2)).abs(), [[0, 0.1732051], [0.1732051, 0]], atol=1e-7)
    assert Reached.of(matrix_kk, 0.5).loss == pytest.approx(0.5 * 2 * 0.03)
    with pytest.raises(BadSpec, match="varies alike"):
        solve(-s_dd[:2, :2], 1e-3)


def test_views_without_anything_in_common_are_solved_on_their_own_images_alone() -> None:
    """W whitens what noise there is, so `own` says nothing; what is held out tells."""
    drawn = torch.Generator().manual_seed(0)
    own, held_out = (ViewMoments(32, torch.device("cpu")) for _ in range(2))
    for moments in (own, held_out):
        moments.take(*torch.randn(2, 4000, 32, generator=drawn))
    projector_kd = solve(own.covariance(), 1e-3).projector_kd
    solved = [Reached.of(projector_kd @ one.covariance() @ projector_kd.mT, 0.0051).solved for one in (own, held_out)]
    assert solved[0] > 95
    assert solved[1] < 0


@pytest.mark.parametrize("rounding", [0.0, 1e-8])
def test_a_backbone_whose_features_are_all_the_same_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounding: float
) -> None:
    """Also where they differ by the rounding of float32, of which half the directions would have a positive share."""
    drawn = torch.Generator().manual_seed(0)

    class Collapsed(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return 1 + rounding * torch.randn(len(pixels), 8, generator=drawn, dtype=torch.float64)

    opened = closed_form.open_backbone

    def collapsed(*asked: Any) -> Any:
        return dataclasses.replace(opened(*asked), module=Collapsed())

    monkeypatch.setattr(closed_form, "open_backbone", collapsed)
    with pytest.raises(BadSpec, match="the backbone has collapsed"):
        run(tmp_path, SMALL)


def test_too_few_held_out_images_are_refused_before_any_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_form, "stream_views", None)
    monkeypatch.setattr(common, "LEAST_SAMPLE", 400)
    with pytest.raises(DataError, match="360 held-out images are too few"):
        run(tmp_path, {**SMALL, "samples": 1000})


def test_the_loss_is_that_without_normalisation() -> None:
    """C of 2 D4 is 4 I: (1 - 4)^2 of each feature."""
    d4 = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    moments = ViewMoments(2, torch.device("cpu"))
    moments.take(2 * d4, 2 * d4)
    reached = Reached.of(moments.covariance(), 0.0051)
    assert (reached.loss, reached.solved) == (18.0, -800.0)
    assert Reached.of(torch.zeros(3, 3), 0.5).solved == 0
    assert Reached.of(torch.eye(3), 0.5).solved == 100


def test_a_run_is_the_decomposition_of_what_its_views_give(tmp_path: Path) -> None:
    """Pixels, so that NumPy needs no network; both views by two pipelines, not centred."""
    asked = {**PIXELS, "distributions": "two", "centred": False, "floor": 0.01}
    result, spec = run(tmp_path / "run", asked), parse_spec(asked)
    context = runs.context(tmp_path / "again")
    rows: list[tuple[np.ndarray, np.ndarray]] = []
    for part, (split, count) in enumerate((("train", 160), ("test", 96))):
        dataset = open_images("digits", split)
        pairs: list[torch.Tensor] = []

        def kept(pixels: torch.Tensor, pairs: list[torch.Tensor] = pairs) -> torch.Tensor:
            pairs.append(pixels.flatten(1))
            return pairs[-1]

        places = drawn_images(len(dataset), count, seed=0, part=part)
        for _ in stream_views(kept, dataset, spec.views, places, seed=0, batch_size=64, phase="", part=part,
                              context=context, units=Units(context)):  # fmt: skip
            assert torch.is_grad_enabled(), "who asks for the blocks is left as it was"
        rows.append((torch.cat(pairs[::2]).double().numpy(), torch.cat(pairs[1::2]).double().numpy()))
    s, held_out = (a.T @ b / len(a) for a, b in rows)
    values, vectors = np.linalg.eigh((s + s.T) / 2)
    keep = values >= 0.01 * values[-1]
    w = vectors[:, keep].T / np.sqrt(values[keep])[:, None]
    for name, matrix in (("own", s), ("held_out", held_out)):
        c = w @ matrix @ w.T
        off = c - np.diag(np.diag(c))
        loss = np.square(1 - np.diag(c)).sum() + 0.0051 * np.square(off).sum()
        assert result[name]["loss"] == pytest.approx(loss, rel=1e-6)
        assert result["scores"][name]["last"] == pytest.approx(100 * (1 - loss / keep.sum()), rel=1e-6)
    assert (result["features"], result["kept"]) == (192, keep.sum())
    assert result["dropped"] == {"directions": 192 - keep.sum(), "negative": (result_values(tmp_path) < 0).sum()}
    of_views = [np.corrcoef(a[:n].T, b[:n].T)[:192, 192:] for a, b in rows[:1] for n in (10, 20, 40, 80, 160)]
    for c, told in zip(of_views, result["symmetry"], strict=True):
        c = np.nan_to_num(c)
        off = np.square(c).sum() - np.square(np.diag(c)).sum()
        assert told["defect"] == pytest.approx(np.sqrt(np.square(c - c.T).sum() / (2 * off)), rel=1e-3)


def result_values(folder: Path) -> np.ndarray:
    return arrays(folder / "run")["eigenvalues"]


def test_an_untrained_backbone_reaches_the_minimum_on_its_own_images(tmp_path: Path) -> None:
    result = run(tmp_path, SMALL)
    c = arrays(tmp_path)["own"].astype(float)
    np.testing.assert_allclose((c + c.T) / 2, np.eye(result["kept"]), atol=1e-5)
    assert result["own"]["loss"] == pytest.approx(0.0051 * np.square(c - np.diag(np.diag(c))).sum(), rel=1e-3)
    assert result["own"]["diagonal_mean"] == pytest.approx(1)
    assert result["scores"]["own"]["last"] > 98
    assert result["scores"]["held_out"]["last"] < result["scores"]["own"]["last"]
    assert result["headline"] == "held_out"
    assert (result["data"]["train_images"], result["data"]["test_images"]) == (160, 96)
    assert [one["images"] for one in result["symmetry"]] == [10, 20, 40, 80, 160]
    assert result["entry_error"] > 0

    told = runs.series(tmp_path)
    assert told["closed_form_held_out", 160] == result["scores"]["held_out"]["last"]
    assert told["closed_form_own_loss", 160] == result["own"]["loss"]
    assert {step for name, step in told if name == "closed_form_symmetry_defect"} == {10, 20, 40, 80, 160}
    (picture,) = runs.events(tmp_path, kind="image")
    assert picture.data == {"key": "closed-form", "file": "closed-form/step-00000160.png"}
    assert (tmp_path / "attempts/0001" / picture.data["file"]).is_file()


def test_a_stop_ends_it_without_a_result(tmp_path: Path) -> None:
    context = runs.context(tmp_path)
    (context.attempt_folder / "control.json").write_text('{"stop": "pause"}')
    assert run_evaluation(parse_spec(SMALL), context) is None  # type: ignore[arg-type]


def test_one_distribution_draws_both_views_from_the_first_pipeline() -> None:
    one, two = (parse_spec({**SMALL, "distributions": how}) for how in ("one", "two"))
    assert views_drawn(one).b == one.views.a != one.views.b  # type: ignore[arg-type]
    assert views_drawn(two) == two.views  # type: ignore[arg-type]
    other = {**SMALL, "views": {**SMALL["views"], "b": {"flip": 0.1}}}
    assert digest(parse_spec(other)) == digest(one)
    assert digest(parse_spec({**other, "distributions": "two"})) != digest(two)


def test_what_the_data_or_the_backbone_rule_out(tmp_path: Path) -> None:
    spec: Any = parse_spec(SMALL)
    few = spec.model_copy(update={"data": spec.data.model_copy(update={"limit": 60})})
    with pytest.raises(DataError, match="60 images of S are too few"):
        run_evaluation(few, runs.context(tmp_path / "few"))
    spec = parse_spec({**SMALL, "backbone": {"name": "vgg11"}, "views": {"size": 32}})
    tiny = spec.model_copy(update={"views": spec.views.model_copy(update={"size": 8})})
    with pytest.raises(BadSpec, match=r"takes no image of 8 px .* set views\.size"):
        run_evaluation(tiny, runs.context(tmp_path / "small"))


def test_images_without_labels_are_enough(tmp_path: Path) -> None:
    dataset = open_images("digits", "train", limit=140)
    for number in range(140):
        path = tmp_path / "own" / ("train" if number < 70 else "test") / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dataset.image(number)).save(path)
    context = runs.context(tmp_path / "run")
    splits = {split: split for split in ("train", "test")}
    context.inputs["data"] = {"own": {"format": "images", "root": str(tmp_path / "own"), "splits": splits}}
    result = run_evaluation(parse_spec({**PIXELS, "data": "own", "floor": 0.05}), context)  # type: ignore[arg-type]
    assert result is not None
    assert (result["data"]["train_images"], result["data"]["test_images"]) == (70, 70)
    assert not runs.events(tmp_path / "run", kind="warning")


@pytest.mark.parametrize(
    ("changes", "place", "said"),
    [
        ({"test_split": "train"}, "/test_split", "cannot be those of data.split, 'train'"),
        ({"data": {"name": "digits", "limit": 63}}, "/data/limit", "63 images are too few"),
        ({"samples": 63}, "/samples", "greater than or equal to 64"),
        ({"floor": 1.0}, "/floor", "less than 1"),
        ({**PIXELS, "views": {"size": 64}}, "/views/size", "raw pixels: the cross-correlation of 12,288 features"),
        ({"backbone": {"name": "vit_b_16"}}, "/views/size", "takes images of 224 px"),
        ({"run": {"published": {"source": "x", "scores": {"top1": 1.0}}}}, "/run/published/scores/top1", "held_out"),
    ],
)
def test_what_cannot_be_is_refused_at_its_place(changes: dict[str, Any], place: str, said: str) -> None:
    with pytest.raises(SpecError) as refused:
        parse_spec({**SMALL, **changes})
    assert [(fault.pointer, said in fault.message) for fault in refused.value.faults] == [(place, True)]


def test_faults_that_take_the_data_set_or_the_source() -> None:
    spec = parse_spec(SMALL)
    assert [fault.pointer for fault in spec.faults_of_size(40, None, "split train")] == ["/data"]
    assert [fault.pointer for fault in spec.faults_of_source("vit_b_16")] == ["/views/size"]
    assert not spec.faults_of_source("resnet18")
