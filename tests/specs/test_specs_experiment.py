"""What an experiment becomes when its seeds, grids and zips are written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from barlow_lab.specs import ExperimentSpec, SpecError, digest, load_spec_file, parse_experiment, parse_spec
from barlow_lab.specs.expansion import expand

PRETRAIN: dict[str, Any] = {
    "kind": "pretrain",
    "data": "textures",
    "backbone": {"name": "tiny"},
    "views": {"preset": "small_images", "size": 32},
    "projector": {"widths": [64, 64]},
    "optimizer": {"name": "adamw", "learning_rate": 0.003},
    "batch_size": 128,
}
KNN: dict[str, Any] = {"kind": "knn", "data": "textures", "backbone_from": {"job": "pretrain"}}
FLOOR: dict[str, Any] = {**KNN, "backbone_from": {"random": 0}, "backbone": {"name": "tiny"}}
RECIPES = {path.stem: load_spec_file(path) for path in (Path(__file__).parents[2] / "recipes").glob("*.yaml")}


def read(jobs: dict[str, Any] | None = None, **varied: Any) -> ExperimentSpec:
    return parse_experiment({"name": "x", "jobs": jobs or {"pretrain": PRETRAIN, "knn": KNN, "floor": FLOOR}, **varied})


def faults(jobs: dict[str, Any] | None = None, **varied: Any) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        read(jobs, **varied)
    assert len({fault.pointer for fault in caught.value.faults}) == len(caught.value.faults)
    return {fault.pointer: fault.message for fault in caught.value.faults}


def test_seeds_vary_the_pretraining_and_what_judges_it_and_nothing_else() -> None:
    found = read(seeds=3)
    assert set(found.jobs) == {"floor", *(f"{job}-seed_{i}" for job in ("pretrain", "knn") for i in range(3))}
    for i in range(3):
        assert (found.jobs[f"pretrain-seed_{i}"].seed, found.jobs[f"knn-seed_{i}"].seed) == (i, 0)
        assert found.edges[f"knn-seed_{i}"] == [f"pretrain-seed_{i}"]
        assert found.jobs[f"knn-seed_{i}"].run.labels == {"seed": str(i)}
    assert list(read(seeds=[7, 5]).jobs)[0:2] == ["pretrain-seed_7", "pretrain-seed_5"]
    assert set(read({"floor": FLOOR}, seeds=2).jobs) == {"floor-seed_0", "floor-seed_1"}, "no pretraining: every job"


def test_a_grid_is_the_product_of_its_lists_named_and_labelled_by_what_varies() -> None:
    grid = {"objective.lambda": [0.01, 1e-5], "projector.widths": [[64, 64], [128]]}
    found = read({"pretrain": PRETRAIN, "knn": KNN}, grid=grid, seeds=2)
    assert len(found.jobs) == 16
    job = found.jobs["pretrain-lambda_1e-05-widths_64x64-seed_1"]
    assert job.run.labels == {"lambda": "1e-05", "widths": "[64,64]", "seed": "1"}
    alone = {**PRETRAIN, "objective": {"lambda": 1e-5}, "projector": {"widths": [64, 64]}, "seed": 1}
    assert digest(job) == digest(parse_spec(alone)), "the same science as if it had been written by hand"
    assert found.edges["knn-lambda_0.01-widths_128-seed_0"] == ["pretrain-lambda_0.01-widths_128-seed_0"]


def test_lists_that_are_zipped_go_together() -> None:
    found = read({"pretrain": {**PRETRAIN, "zip": {"batch_size": [64, 128], "optimizer.learning_rate": [0.1, 0.2]}}})
    assert list(found.jobs) == [
        "pretrain-batch_size_64-learning_rate_0.1", "pretrain-batch_size_128-learning_rate_0.2",
    ]  # fmt: skip


def test_a_job_varies_by_itself_beside_what_it_has_from_its_source() -> None:
    jobs = {"pretrain": {**PRETRAIN, "seeds": 2}, "knn": {**KNN, "grid": {"k": [5, 20]}, "seeds": [4, 5]}}
    found = read(jobs)
    assert len(found.jobs) == 2 + 2 * 2 * 2
    job = found.jobs["knn-k_5-pretrain.seed_1-seed_4"]
    assert (job.seed, found.edges["knn-k_5-pretrain.seed_1-seed_4"]) == (4, ["pretrain-seed_1"])


def test_after_waits_for_all_that_a_job_becomes_and_for_its_own_where_both_vary() -> None:
    waits = {"run": {"after": ["pretrain"]}}
    found = read({"pretrain": PRETRAIN, "knn": {**KNN, **waits}, "floor": {**FLOOR, **waits}}, seeds=2)
    assert found.jobs["floor"].run.after == ["pretrain-seed_0", "pretrain-seed_1"]
    assert found.jobs["knn-seed_1"].run.after == ["pretrain-seed_1"]


def test_sources_and_whole_objects_vary_too() -> None:
    jobs = {"a": PRETRAIN, "b": PRETRAIN, "knn": {**KNN, "grid": {"backbone_from.job": ["a", "b"]}}}
    found = read(jobs, seeds=2)
    assert found.edges["knn-job_b-seed_1"] == ["b-seed_1"]
    objectives = read({"pretrain": {**PRETRAIN, "grid": {"objective": [{"name": "vicreg"}, {"lambda": 0.1}]}}})
    assert list(objectives.jobs) == ["pretrain-objective_vicreg", "pretrain-objective_no2"]
    assert list(read({"p": {**PRETRAIN, "grid": {"objective.name": ["vicreg"]}}}).jobs) == ["p-objective_vicreg"]
    limited = read({"p": {**PRETRAIN, "grid": {"data.limit": [256]}}}).jobs["p-limit_256"]
    assert (limited.data.name, limited.data.limit) == ("textures", 256)
    mixed = {"grid": {"backbone_from": [{"job": "pretrain"}, {"random": 0}], "backbone.name": ["tiny"]}}
    said = faults({"pretrain": {**PRETRAIN, "seeds": 2}, "knn": {**KNN, **mixed}})
    assert "not alike" in said["/jobs/knn"]


def test_names_are_unique_and_no_longer_than_a_name_may_be() -> None:
    long = "p" * 95
    names = list(read({long: {**PRETRAIN, "seeds": 3, "grid": {"optimizer.learning_rate": [0.1, 0.2]}}}).jobs)
    assert len(set(names)) == 6
    assert {len(name) for name in names} == {100}
    told = {"run": {"published": {"scores": {"top1": 1}}}, "grid": {"run.published.source": ["a b", "a_b"]}}
    alike = read({"floor": {**FLOOR, **told}})
    assert len(alike.jobs) == 2
    said = faults({"p": {**PRETRAIN, "seeds": 2}, "p-seed_1": PRETRAIN})
    assert "is called p-seed_1" in said["/jobs/p-seed_1"]


def test_labels_that_the_user_wrote_stay() -> None:
    found = read({"p": {**PRETRAIN, "seeds": 1, "run": {"labels": {"seed": "mine", "team": "b"}}}})
    assert found.jobs["p-seed_0"].run.labels == {"seed": "mine", "team": "b"}


def test_every_fault_is_told_once_where_it_was_written() -> None:
    said = faults(
        {"pretrain": {**PRETRAIN, "epochs": 0}, "knn": {**KNN, "k": 0, "run": {"after": ["pretrain", "x\n"]}}},
        grid={"objective.lambda": [0.1, -1], "optimiser.learning_rate": [1, 2], "projector.widths": [[64, 1]]},
    )
    assert set(said) == {
        "/grid/objective.lambda/1",
        "/grid/optimiser.learning_rate",
        "/grid/projector.widths/0/1",
        "/jobs/knn/k",
        "/jobs/knn/run/after/1",
        "/jobs/pretrain/epochs",
    }
    assert "did you mean 'optimizer'?" in said["/grid/optimiser.learning_rate"]


@pytest.mark.parametrize(
    ("varied", "pointer", "message"),
    [
        ({"seeds": 0}, "/seeds", "a number of seeds"),
        ({"seeds": True}, "/seeds", "a number of seeds"),
        ({"seeds": 10**400}, "/seeds", "more jobs than the 10,000"),
        ({"seeds": [1, 2, 1]}, "/seeds/2", "twice"),
        ({"seeds": [0, "0"]}, "/seeds/1", "twice"),
        ({"grid": {"epochs": [1, 1.0]}}, "/grid/epochs/1", "twice"),
        ({"grid": {"objective": [{"lambda": 1}, {"lambda": 1.0}]}}, "/grid/objective/1", "twice"),
        ({"zip": {"epochs": [1, 2, 1], "seed": [3, 3, 3]}}, "/zip/epochs/2", "twice"),
        ({"seeds": [-1]}, "/seeds/0", "greater than or equal to 0"),
        ({"grid": []}, "/grid", "fields with their values"),
        ({"grid": {"epochs": 3}}, "/grid/epochs", "put [ and ] around it"),
        ({"grid": {"epochs": []}}, "/grid/epochs", "a list of values"),
        ({"grid": {"epochs.": [1]}}, "/grid/epochs.", "with dots"),
        ({"grid": {"epochs.x": [1]}, "zip": {"epochs": [2]}}, "/zip/epochs", "varied already, by grid.epochs.x"),
        ({"grid": {"batch_size.x": [1]}}, "/grid/batch_size.x", "batch_size is no object"),
        ({"grid": {"projector.widths.0": [1]}}, "/grid/projector.widths.0", "a list, which is set as a whole"),
        ({"grid": {"kind": ["knn"]}}, "/grid/kind", "write a job for each kind"),
        ({"grid": {f"x{i}": [1] for i in range(21)}}, "/grid", "21 fields vary, and up to 20 may"),
        ({"zip": {"epochs": [1, 2], "seed": [3]}}, "/zip", "epochs has 2, seed has 1"),
        ({"seeds": 2, "grid": {"seed": [1]}}, "/seeds", "varied already, by grid.seed"),
        ({"sweep": {}}, "/sweep", "seeds, grid and zip"),
    ],
)
def test_what_cannot_vary_is_told_with_the_remedy(varied: dict[str, Any], pointer: str, message: str) -> None:
    assert message in faults(**varied)[pointer]


def test_a_job_s_own_faults_stand_below_it_and_one_job_alone_does_not_vary() -> None:
    said = faults({"p": {**PRETRAIN, "seeds": "x", "grid": {"epochs": [1, 0]}}})
    assert set(said) == {"/jobs/p/seeds", "/jobs/p/grid/epochs/1"}
    with pytest.raises(SpecError, match="make an experiment of it"):
        parse_spec({**PRETRAIN, "seeds": 3})


def test_a_grid_is_counted_before_it_is_made() -> None:
    thousand = list(range(1, 1001))
    said = faults(grid={"epochs": thousand, "batch_size": thousand, "seed": thousand})
    assert "it becomes 2,000,000,001 jobs (1,000,000,000 of pretrain)" in said["/jobs"]
    found = expand({"name": "x", "jobs": {"p": {**PRETRAIN, "seeds": 501}}}, 500)
    assert [fault.pointer for fault in found.faults] == ["/jobs/p/seeds"]
    large = {**PRETRAIN, "run": {"after": ["x"] * 200}}
    found = expand({"name": "x", "jobs": {"p": {**large, "grid": {"epochs": thousand[:400]}}}}, 500)
    assert "over 50,000 values" in found.faults[0].message
    assert not found.variants


def test_lists_along_a_chain_of_jobs_are_bounded_too() -> None:
    grid = {f"x{i}": [1, 2, 3] for i in range(20)}
    chain = {f"j{i}": {**KNN, "backbone_from": {"job": f"j{i - 1}"}, "grid": grid} for i in range(3)}
    found = expand({"name": "x", "jobs": {"p": PRETRAIN, **chain}}, 500)
    assert {fault.pointer: fault.message for fault in found.faults} == {
        "/jobs/j2": "60 lists vary it, with those of what it takes its backbone from; up to 40 may",
        "/jobs": "it becomes over 1e+15 jobs (over 1e+15 of j1), and one body brings up to 500; make several "
        "experiments",
    }


def test_a_circle_of_backbones_is_a_fault_and_no_loop() -> None:
    jobs = {"pretrain": {**PRETRAIN, "run": {"after": ["knn"]}}, "knn": KNN}
    (said,) = faults(jobs, seeds=2).values()
    assert "none of them could ever start" in said
    selves = {"a": {**KNN, "backbone_from": {"job": "b"}}, "b": {**KNN, "backbone_from": {"job": "a"}, "seeds": 2}}
    assert any("break the circle" in said for said in faults(selves).values())


def _varies(body: dict[str, Any]) -> bool:
    return any(field in part for part in (body, *body["jobs"].values()) for field in ("seeds", "grid", "zip"))


@pytest.mark.parametrize("name", [name for name, body in RECIPES.items() if "jobs" in body and not _varies(body)])
def test_an_experiment_that_varies_nothing_is_what_it_was(name: str) -> None:
    body = RECIPES[name]
    assert {job: spec.resolved() for job, spec in parse_experiment(body).jobs.items()} == {
        job: parse_spec({**spec, "name": job}).resolved() for job, spec in body["jobs"].items()
    }
