"""What a spec accepts, what it refuses, and how it says so."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barlow_lab.specs import Fault, KnnSpec, LinearSpec, PretrainSpec, SpecError, parse_spec
from barlow_lab.specs.common import RULES
from barlow_lab.specs.data_sets import DataSource
from barlow_lab.specs.kinds import KINDS


def pretrain(**fields: Any) -> dict[str, Any]:
    return {"kind": "pretrain", "data": "digits", **fields}


def knn(**fields: Any) -> dict[str, Any]:
    return {"kind": "knn", "data": "digits", "backbone_from": {"job": "p"}, **fields}


def faults_of(value: object) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        parse_spec(value)
    found = {f.pointer: f.message for f in caught.value.faults}
    assert len(found) == len(caught.value.faults), "one fault for one place"
    return found


def test_each_kind_is_parsed_with_the_defaults_of_the_paper() -> None:
    spec = parse_spec(pretrain())
    assert isinstance(spec, PretrainSpec)
    assert (spec.epochs, spec.batch_size, spec.objective.lambda_) == (1000, 2048, 0.0051)
    assert spec.projector.widths == [8192, 8192, 8192]
    assert spec.optimizer.name == "lars"
    assert isinstance(parse_spec(knn()), KnnSpec)
    assert isinstance(parse_spec({**knn(), "kind": "linear"}), LinearSpec)


def test_all_faults_are_reported_at_once_with_pointer_and_nearest_name() -> None:
    found = faults_of(
        pretrain(
            epohcs=3,
            batch_size="many",
            backbone={"name": "resnet51", "sten": "small"},
            objective={"lambada": 0.1},
            optimizer={"name": "sgd", "momentun": 0.9, "betas": [0.9, 0.99]},
            run={"checkpoint": {"every_epoch": 1}, "labels": {"a/b": 1, "bad key": "x", "sgd": 2}},
            sgd={},
            **{"a/b~c": 1},
        )
    )
    assert set(found) == {
        "/epohcs", "/batch_size", "/backbone/name", "/backbone/sten", "/objective/lambada", "/optimizer/momentun",
        "/optimizer/betas", "/run/checkpoint/every_epoch", "/run/labels/a~1b", "/run/labels/bad key",
        "/run/labels/sgd", "/sgd", "/a~1b~0c",
    }  # fmt: skip
    for pointer, name in {
        "/epohcs": "epochs",
        "/backbone/name": "resnet50",
        "/backbone/sten": "stem",
        "/objective/lambada": "lambda",
        "/optimizer/momentun": "momentum",
        "/run/checkpoint/every_epoch": "every_epochs",
    }.items():
        assert f"did you mean '{name}'?" in found[pointer] or f"did you mean {name!r}" in found[pointer]


@pytest.mark.parametrize("value", [None, [], [1], "kind: knn", 3, 2.5, True])
def test_what_is_not_an_object_is_refused(value: object) -> None:
    assert list(faults_of(value)) == [""]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({}, "kind is missing"),
        ({"kind": None}, "not null"),
        ({"kind": ["knn"]}, "not a list"),
        ({"kind": {"a": 1}}, "not an object"),
        ({"kind": "linaer"}, "did you mean 'linear'?"),
        ({"kind": "x" * 10_000}, "unknown kind"),
    ],
)
def test_a_bad_kind_is_refused(value: object, said: str) -> None:
    found = faults_of(value)
    assert said in found["/kind"]
    assert len(found["/kind"]) < 300


def test_an_experiment_in_the_place_of_a_job_is_named_as_such() -> None:
    assert "this is an experiment" in faults_of({"name": "demo", "jobs": {"a": {"kind": "knn"}}})["/jobs"]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"epochs": True}, "/epochs"),
        ({"seed": False}, "/seed"),
        ({"spec_version": 2}, "/spec_version"),
        ({"objective": {"lambda": True}}, "/objective/lambda"),
        ({"projector": {"widths": [16, True]}}, "/projector/widths/1"),
        ({"optimizer": {"name": "adamw", "betas": [False, 0.9]}}, "/optimizer/betas/0"),
        ({"views": {"a": {"flip": True}}}, "/views/a/flip"),
        ({"optimizer": {"learning_rate": float("nan")}}, "/optimizer/learning_rate"),
        ({"optimizer": {"learning_rate": float("inf")}}, "/optimizer/learning_rate"),
        ({"optimizer": {"learning_rate": "inf"}}, "/optimizer/learning_rate"),
        ({"optimizer": {"learning_rate": 10**400}}, "/optimizer/learning_rate"),
        ({"optimizer": {"learning_rate": 0}}, "/optimizer/learning_rate"),
        ({"optimizer": {"name": "lasr"}}, "/optimizer/name"),
        ({"optimizer": {"name": None}}, "/optimizer/name"),
        ({"optimizer": []}, "/optimizer"),
        ({"seed": 2**31}, "/seed"),
        ({"max_steps": 10**400}, "/max_steps"),
        ({"max_steps": 2**53}, "/max_steps"),
        ({"data": {"name": "digits", "limit": 10**30}}, "/data/limit"),
        ({"epochs": 1.5}, "/epochs"),
        ({"epochs": None}, "/epochs"),
        ({"data": {"name": "../etc"}}, "/data/name"),
        ({"data": None}, "/data"),
        ({"name": "a b"}, "/name"),
        ({"name": 3}, "/name"),
        ({"run": {"after": ["a\x00"]}}, "/run/after/0"),
        ({"run": {"after": ["\ud800"]}}, "/run/after/0"),
        ({"run": {"labels": {"a": "\x1b[2J"}}}, "/run/labels/a"),
        ({"run": {"labels": {"a//b": "x"}}}, "/run/labels/a~1~1b"),
        ({"run": {"labels": {"a/../b": "x"}}}, "/run/labels/a~1..~1b"),
        ({"run": {"labels": {"a/": "x"}}}, "/run/labels/a~1"),
        ({"run": {"labels": {"a" * 64: "x"}}}, "/run/labels/" + "a" * 64),
        ({"views": {"preset": ["barlow_twins"]}}, "/views/preset"),
        ({"views": {"engine": "gpu"}}, "/views/engine"),
        ({"views": {"both": 3}}, "/views/both"),
        ({"views": {"both": {"flip": 2}}}, "/views/both/flip"),
        ({"views": {"both": {"flpi": 1}}}, "/views/both/flpi"),
        ({"views": {"bth": {}}}, "/views/bth"),
        ({"views": {"a": {"crop_scale": [0.9, 0.2]}}}, "/views/a/crop_scale"),
        ({"views": {"b": {"crop_scale": [0.2, 1.5]}}}, "/views/b/crop_scale"),
        ({"views": {"both": {"blur": {"radius": [2, 1]}}}}, "/views/both/blur/radius"),
        ({"views": {"both": {"blur": {"radius": [1, 1e300]}}}}, "/views/both/blur/radius/1"),
        ({"views": {"b": {"jitter": {"brightness": 1e300}}}}, "/views/b/jitter/brightness"),
        ({"batch_size": 2}, "/batch_size"),
        ({"views": {"a": {"crop_ratio": [1]}}}, "/views/a/crop_ratio/1"),
        ({"resources": {"nodes": 2}}, "/resources/nodes"),
        ({"precision": "fp8"}, "/precision"),
    ],
)
def test_a_bad_value_is_refused_where_it_stands(fields: dict[str, Any], pointer: str) -> None:
    assert list(faults_of(pretrain(**fields))) == [pointer]


def test_a_fault_of_both_views_stays_apart_from_one_of_a_single_view() -> None:
    found = faults_of(pretrain(views={"both": {"flip": 2}, "b": {"grayscale": -1}}))
    assert set(found) == {"/views/both/flip", "/views/b/grayscale"}


@pytest.mark.parametrize(
    ("value", "remedies"),
    [
        (
            pretrain(batch_size=10, resources={"slots": 4}, epochs=5, optimizer={"warmup_epochs": 5}),
            {"/batch_size": "use 8 or 12", "/optimizer/warmup_epochs": "leave it out"},
        ),
        (pretrain(batch_size=3, resources={"slots": 4}), {"/batch_size": "use 4, or"}),
        (pretrain(batch_size=64, data={"name": "digits", "limit": 63}), {"/data/limit": "lower batch_size"}),
        (pretrain(batch_size=64, micro_batch=24), {"/micro_batch": "does not divide batch_size 64"}),
        (pretrain(batch_size=64, micro_batch=32, resources={"slots": 64}), {"/micro_batch": "multiple of 64 from 128"}),
        (pretrain(batch_size=64, micro_batch=4, resources={"slots": 4}), {"/micro_batch": "at least 2"}),
        (pretrain(accumulate_grad_batches=4), {"/accumulate_grad_batches": "another objective"}),
        (
            pretrain(gradient_accumulation_steps=4, optimizer={"accumulation_steps": 2}),
            {"/gradient_accumulation_steps": "use micro_batch", "/optimizer/accumulation_steps": "use micro_batch"},
        ),
        (
            knn(backbone_from={}),
            {"/backbone_from": "exactly one of job, file, torchvision, random, pixels (given: none)"},
        ),
        (knn(backbone_from={"job": "p", "random": 1}), {"/backbone_from": "given: job, random"}),
        (knn(backbone_from={"random": 0, "select": "step 3"}, backbone={}), {"/backbone_from": "leave it out"}),
        (knn(backbone_from={"random": 0}), {"/backbone": "add backbone"}),
        (knn(backbone={"name": "tiny"}), {"/backbone": "leave it out"}),
        (knn(backbone_from={"pixels": True}, backbone={"name": "tiny"}), {"/backbone": "leave it out"}),
        (knn(images={"size": 64, "resize": 32}), {"/images/resize": "raise it"}),
        (knn(kind="linear", schedule={"factor": 0.5}), {"/schedule/factor": "set shape: steps"}),
        (
            knn(run={"published": {"source": "A table", "scores": {"top1": 73.2, "top_5": 91.0, "map_11_point": 1.0}}}),
            {"/run/published/scores/top_5": "use top1, top5", "/run/published/scores/map_11_point": "use top1, top5"},
        ),
        (
            knn(kind="svm", run={"published": {"source": "A table", "scores": {"top1": 73.2}}}),
            {"/run/published/scores/top1": "svm has no score of this name; use map_11_point, map_all_points"},
        ),
        (
            knn(kind="detection", run={"published": {"source": "A", "scores": {"mask_ap": 1.0, "box_ap50": 2.0}}}),
            {"/run/published/scores/mask_ap": "use box_ap, box_ap50, box_ap75, box_ap_11_point"},
        ),
        (knn(kind="detection", steps=500), {"/warmup_steps": "never end within steps 500; shorten them"}),
        (pretrain(run={"published": {"source": "A table", "scores": {"top1": 73.2}}}), {"/run/published": "no scores"}),
        (
            pretrain(
                backbone={"name": "squeezenet1_1"},
                run={"record": {"probes": {"size": 8, "k": 20, "limit": 10}}},
            ),
            {
                "/run/record/probes/size": "squeezenet1_1 needs images of",
                "/run/record/probes/k": "20 neighbours of the first 10 images",
            },
        ),
    ],
)
def test_impossible_combinations_are_refused_with_the_remedy(value: object, remedies: dict[str, str]) -> None:
    found = faults_of(value)
    assert set(found) == set(remedies)
    for pointer, remedy in remedies.items():
        assert remedy in found[pointer]


@pytest.mark.parametrize("select", ["last", "step 0", "step 1200"])
def test_a_checkpoint_is_selected_by_name(select: str) -> None:
    assert parse_spec(knn(backbone_from={"job": "p", "select": select})).backbone_from.select == select  # type: ignore[union-attr]


@pytest.mark.parametrize("select", ["best", "step -1", "step", "step 1e3", "step 1\n"])
def test_a_checkpoint_that_cannot_be_named_is_refused(select: str) -> None:
    assert list(faults_of(knn(backbone_from={"job": "p", "select": select}))) == ["/backbone_from/select"]


def test_steps_are_whole_batches_and_max_steps_only_shortens() -> None:
    def spec(**fields: Any) -> PretrainSpec:
        parsed = parse_spec(pretrain(epochs=3, batch_size=32, **fields))
        assert isinstance(parsed, PretrainSpec)
        return parsed

    assert (spec().steps_per_epoch(1000), spec().total_steps(1000)) == (31, 93)
    assert spec().steps_per_epoch(31) == spec().total_steps(31) == 0
    assert spec(max_steps=50).total_steps(1000) == 50
    assert spec(max_steps=500).total_steps(1000) == 93
    assert spec(data={"name": "digits", "limit": 100}).steps_per_epoch(1000) == 3
    assert spec(data={"name": "digits", "limit": 5000}).steps_per_epoch(1000) == 31


@settings(max_examples=50, deadline=None)
@given(
    epochs=st.integers(1, 1000),
    batch=st.integers(3, 512),
    images=st.integers(0, 5000),
    max_steps=st.none() | st.integers(1, 5000),
)
def test_a_run_never_reads_more_images_than_there_are(
    epochs: int, batch: int, images: int, max_steps: int | None
) -> None:
    spec = parse_spec(pretrain(epochs=epochs, batch_size=batch, max_steps=max_steps))
    assert isinstance(spec, PretrainSpec)
    per_epoch, total = spec.steps_per_epoch(images), spec.total_steps(images)
    assert per_epoch * batch <= images < (per_epoch + 1) * batch
    assert total == min(per_epoch * epochs, max_steps or per_epoch * epochs)


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_JSON = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
_FIELDS = [*PretrainSpec.model_fields, *KnnSpec.model_fields, "lars", "sgd"]


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(["pretrain", "linear", "knn"]),
    junk=st.dictionaries(st.sampled_from(_FIELDS) | st.text(max_size=8), _JSON, max_size=5),
    inner=st.sampled_from(["views", "optimizer", "run", "backbone", "data", "resources", "backbone_from", "objective"]),
    inside=st.dictionaries(
        st.sampled_from(["a", "b", "both", "preset", "name", "labels", "job", "lars", "checkpoint"]), _JSON, max_size=4
    ),
)
def test_junk_is_a_spec_or_a_spec_error_and_every_fault_can_be_sent(
    kind: str, junk: dict[str, Any], inner: str, inside: dict[str, Any]
) -> None:
    value = {"data": "digits", **junk, "kind": kind, inner: inside}
    try:
        parse_spec(value)
        faults = [Fault("", "none")]
    except SpecError as error:
        faults = error.faults
    assert faults
    for fault in faults:
        assert fault.pointer == "" or fault.pointer.startswith("/")
        assert fault.message
        json.dumps([fault.pointer, fault.message], ensure_ascii=False).encode()


def test_deeply_nested_junk_is_refused_without_being_walked() -> None:
    deep: Any = {}
    for _ in range(100_000):
        deep = {"a": deep}
    assert "/views/both/a" in faults_of(pretrain(views={"both": deep}))
    assert list(faults_of({"kind": deep})) == ["/kind"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"file": "../x.pth"}, "a path below the server's BARLOW_BACKBONES_DIR is expected"),
        ({"file": "/abs/x.pth"}, "a path below the server's BARLOW_BACKBONES_DIR is expected"),
        ({"torchvision": "resnet50"}, "weights by torchvision's name are expected, for example ResNet50_Weights"),
    ],
)
def test_a_backbone_named_in_another_form_is_told_the_form(source, said):
    with pytest.raises(SpecError) as refused:
        parse_spec({"kind": "knn", "data": "digits", "backbone_from": source})
    (fault,) = refused.value.faults
    assert fault.pointer == f"/backbone_from/{next(iter(source))}"
    assert fault.message.startswith(said)


@pytest.mark.parametrize(
    "field", [("record", {"probes": {}}), ("checkpoint", {"best_by": "loss"}), ("stop_on", ["collapse"])]
)
def test_what_an_evaluation_would_not_heed_is_refused(field):
    name, value = field
    with pytest.raises(SpecError) as refused:
        parse_spec({"kind": "knn", "data": "digits", "backbone_from": {"pixels": True}, "run": {name: value}})
    place = f"/run/{name}/{next(iter(value))}" if isinstance(value, dict) else f"/run/{name}"
    assert [fault.pointer for fault in refused.value.faults] == [place]


def patterns_in(schema: object) -> set[str]:
    if isinstance(schema, dict):
        own = {schema["pattern"]} if isinstance(schema.get("pattern"), str) else set()
        # A pattern for the keys of an object stands as a key itself.
        keys = set(schema.get("patternProperties", {}))
        return own.union(keys, *map(patterns_in, schema.values()))
    return set().union(*map(patterns_in, schema)) if isinstance(schema, list) else set()


def test_every_text_that_has_to_have_a_form_is_refused_in_words_of_its_own() -> None:
    """A pattern in a message helps nobody; the words of another field lead astray."""
    sources = get_args(get_args(DataSource)[0])
    patterns = set().union(*(patterns_in(model.model_json_schema()) for model in [*KINDS.values(), *sources]))
    assert len(patterns) > 5
    assert patterns <= RULES.keys(), patterns - RULES.keys()
    assert len(set(RULES.values())) == len(RULES)


@pytest.mark.parametrize(
    ("run", "pointer", "said"),
    [
        ({"labels": {"reviewed by": "ana"}}, "/run/labels/reviewed by", "the name of a label is expected: up to 63"),
        ({"labels": {"a//b": "ana"}}, "/run/labels/a~1~1b", "the name of a label is expected"),
        ({"labels": {"": "ana"}}, "/run/labels/", "the name of a label is expected"),
        ({"labels": {"a": "x\ny"}}, "/run/labels/a", "text on one line is expected"),
        ({"after": ["a\tb"]}, "/run/after/0", "text on one line is expected"),
        ({"published": {"source": "s", "scores": {"Top 1": 1}}}, "/run/published/scores/Top 1", "name of a score is"),
    ],
)
def test_a_name_that_is_refused_is_refused_in_its_own_words(run: dict[str, Any], pointer: str, said: str) -> None:
    found = faults_of(pretrain(run=run))
    assert list(found) == [pointer]
    assert said in found[pointer]


@pytest.mark.parametrize("name", ["a", "reviewed-by", "team/reviewer", "a." + 61 * "b", "0/1/2"])
def test_names_of_labels_that_were_taken_are_taken(name: str) -> None:
    assert parse_spec(pretrain(run={"labels": {name: "x"}})).run.labels == {name: "x"}
