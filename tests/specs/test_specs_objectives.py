"""Objectives in a spec: chosen by name, Barlow Twins without one, each with its own parameters and faults."""

import re
from typing import Any, Literal, get_args, get_origin

import pytest

from barlow_lab.specs import BarlowTwinsSpec, PretrainSpec, SpecError, VicregSpec, digest, open_stored, parse_spec
from barlow_lab.specs.loss_form import BUDGET, LEAST_SHARDS
from barlow_lab.specs.stored import _choices

OBJECTIVE = PretrainSpec.model_fields["objective"].annotation
BASE = {"kind": "pretrain", "data": "digits"}


def given(**objective: Any) -> PretrainSpec:
    spec = parse_spec({**BASE, "objective": objective})
    assert isinstance(spec, PretrainSpec)
    return spec


def faults(value: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        parse_spec({**BASE, **value})
    return {fault.pointer: fault.message for fault in caught.value.faults}


@pytest.mark.parametrize("objective", [{}, {"lambda": 0.01}, {"form": "direct"}, {"name": "barlow_twins"}])
def test_without_a_name_barlow_twins_is_meant(objective: dict[str, Any]) -> None:
    assert isinstance(given(**objective).objective, BarlowTwinsSpec)
    assert digest(given(**objective)) == digest(given(**{"name": "barlow_twins", **objective}))


@pytest.mark.parametrize("field", ["objective", "optimizer"])
def test_of_a_union_the_name_of_every_member_but_the_default_counts_in_the_digest(field: str) -> None:
    """What equals a default is left out of the digest, so only the member that is taken unnamed may have one."""
    members = _choices(PretrainSpec.model_fields[field].annotation)
    assert len(members) > 1
    default = type(PretrainSpec.model_fields[field].get_default(call_default_factory=True))
    names = set()
    for member in members:
        name = member.model_fields["name"]
        assert get_origin(name.annotation) is Literal
        names |= set(get_args(name.annotation))
        assert name.is_required() == (member is not default)
    assert len(names) == len(members)
    # An error at NAME and one at a field of that name could not be told apart.
    assert not names & {field for member in members for field in member.model_fields}
    narrow = {"widths": [128, 128]}  # which every objective takes
    plain = {name: digest(parse_spec({**BASE, "projector": narrow, field: {"name": name}})) for name in names}
    assert len(set(plain.values())) == len(names)


def test_a_stored_objective_is_opened_as_what_it_is() -> None:
    spec = given(name="vicreg", covariance=2.0)
    opened = open_stored(spec.resolved())
    assert isinstance(opened, PretrainSpec)
    assert opened.objective == spec.objective
    assert isinstance(opened.objective, VicregSpec)


def test_a_wrong_name_lists_the_names_of_its_own_field() -> None:
    found = faults({"objective": {"name": "vicreq"}, "optimizer": {"name": "adam"}})
    names = [get_args(one.model_fields["name"].annotation)[0] for one in _choices(OBJECTIVE)]
    assert {"barlow_twins", "vicreg", "pcl"} < set(names)
    assert found == {
        "/objective/name": f"unknown name 'vicreq'; use one of {', '.join(names)}; did you mean 'vicreg'? (one of your "
        "own has to be installed here, registered under the group barlow_lab.objectives)",
        "/optimizer/name": "unknown name 'adam'; use one of lars, sgd, adamw; did you mean 'adamw'?",
    }


def test_every_fault_is_named_at_once_with_the_pointer_that_the_user_wrote() -> None:
    found = faults({"objective": {"name": "vicreg", "lambda": 0.1, "epsilon": 0, "covarience": 1}, "epochs": 0})
    assert found.keys() == {"/objective/lambda", "/objective/epsilon", "/objective/covarience", "/epochs"}
    assert "'covariance'" in found["/objective/covarience"]


def test_a_parameter_of_another_objective_is_refused() -> None:
    said = "unknown field; it belongs to {}: set `name` to that, or leave it out"
    assert faults({"objective": {"covariance": 1.0}}) == {"/objective/covariance": said.format("vicreg")}
    assert faults({"objective": {"name": "vicreg", "lambda": 1}}) == {
        "/objective/lambda": said.format("barlow_twins and information_bottleneck")
    }
    optimizer = {"name": "adamw", "momentum": 0.9}
    assert faults({"optimizer": optimizer}) == {"/optimizer/momentum": said.format("lars and sgd")}


@pytest.mark.parametrize(
    "objective",
    [{"name": "nt_xent"}, {"name": "infonce"}, {"name": "pcl"}, {"name": "barlow_twins", "loss": "cross_entropy"}],
)
def test_a_temperature_that_diverges_at_once_is_refused(objective: dict[str, Any]) -> None:
    found = faults({"objective": {**objective, "temperature": 1e-40}})
    assert "use at least 0.001, rather 0.05 or more" in found["/objective/temperature"]


def test_below_a_batch_there_is_no_queue_to_name() -> None:
    objective = {"name": "pcl", "queue": 512, "clusters": [10]}
    found = faults({"data": {"name": "digits", "limit": 100}, "batch_size": 256, "objective": objective})
    assert found.keys() == {"/data/limit"}


@pytest.mark.parametrize("objective", [{"name": "simsiam"}, {"predictor_width": 64}])
def test_parts_of_an_objective_are_trained_on_a_frozen_backbone_alone(objective: dict[str, Any]) -> None:
    frozen = {"backbone": {"name": "tiny", "frozen": True}, "projector": "none"}
    assert parse_spec({**BASE, **frozen, "objective": objective})
    assert faults({**frozen, "objective": {}}).keys() == {"/backbone/frozen"}


@pytest.mark.parametrize("name", ["nt_xent", "infonce"])
@pytest.mark.parametrize("temperature", [0, -0.5])
def test_a_temperature_that_is_not_above_0_is_refused_with_the_reason(name: str, temperature: float) -> None:
    found = faults({"objective": {"name": name, "temperature": temperature}, "epochs": 0})
    assert found.keys() == {"/objective/temperature", "/epochs"}
    assert f"divided by the temperature: {temperature:g} leaves no order" in found["/objective/temperature"]
    assert "use a value above 0, for example 0.1" in found["/objective/temperature"]


@pytest.mark.parametrize(
    ("changes", "pointer", "said"),
    [
        ({"beta": 1}, "/objective/beta", "beta 1 is not above 1: .* is one that does not depend on the image"),
        (
            {"beta": 0.5},
            "/objective/beta",
            r"\(Barlow Twins paper, appendix A\); use more than 1, rather 10 or more, or leave it out for 100",
        ),
        ({"beta": 1e17}, "/objective/beta", "is 1 in float64; use less, such as 1e6, or leave"),
        ({"lambda": 1}, "/objective/lambda", r"no beta has it: it is \(beta - 1\) / beta, .* Leave it out for 0.99"),
        ({"lambda": 0}, "/objective/lambda", "the best embedding does not depend on the image"),
        ({"lambda": 0.5, "beta": 2}, "/objective/beta", "say the same: .* leave one of them out"),
        ({"floor": 1e-5}, "/objective/floor", "below what float32 resolves of covariances of 8192 features, 0.00098"),
        ({"floor": 0}, "/objective/floor", "greater than 0"),
        ({"shrinkage": "ledoit"}, "/objective/shrinkage", "'none' or 'oas'"),
    ],
)
def test_a_bottleneck_that_trades_nothing_off_is_refused(changes: dict[str, Any], pointer: str, said: str) -> None:
    found = faults({"objective": {"name": "information_bottleneck", **changes}})
    assert found.keys() == {pointer}
    assert re.search(said, found[pointer])


def test_beta_and_lambda_are_two_ways_to_write_one_digest() -> None:
    plain, beta, lambda_, other = (
        digest(given(name="information_bottleneck", **each))
        for each in ({}, {"beta": 100}, {"lambda": 0.99}, {"beta": 4})
    )
    assert plain == beta == lambda_
    assert other == digest(given(**{"name": "information_bottleneck", "lambda": 0.75})) != plain


@pytest.mark.parametrize(
    ("plain", "written", "other"),
    [
        ({"name": "w_mse"}, {"sub_batch": 128}, {"sub_batch": 256}),
        ({"name": "simsiam"}, {"predictor_width": 16}, {"predictor_width": 32}),
        ({"normalisation": "feature"}, {"factor": 64}, {"factor": 32}),
    ],
)
def test_what_the_width_gives_has_one_digest_written_or_left_out(
    plain: dict[str, Any], written: dict[str, Any], other: dict[str, Any]
) -> None:
    whole = {**BASE, "batch_size": 256, "projector": {"widths": [32, 64]}}
    digests = [digest(parse_spec({**whole, "objective": {**plain, **more}})) for more in ({}, written, other)]
    assert digests[0] == digests[1] != digests[2]


def test_weights_that_leave_nothing_are_refused() -> None:
    found = faults({"objective": {"name": "vicreg", "invariance": 0, "variance": 0, "covariance": 0}})
    assert "leave them out for 25, 25, 1" in found["/objective/invariance"]


@pytest.mark.parametrize(
    ("objective", "features", "held"),
    [
        ({}, 1024, 1024**2),  # of 2,048 images the direct form is exact
        ({"form": "sharded"}, 1024, 1024**2 // LEAST_SHARDS),
        ({"name": "vicreg"}, 1024, 1024**2),
        ({"name": "vicreg"}, 65536, 65536**2 // LEAST_SHARDS),
        # 1,024 rows of 4,096 cosines twice, and the rows themselves; both views once, and 4 numbers of each
        ({"name": "nt_xent"}, 128, 2 * 1024 * 4096 + 1024 * 128 + 2 * 2048 * 128 + 4 * 4096),
        ({"name": "w_mse"}, 128, 5 * 2048 * 128 + 16 * 256 * 128 + 14 * 128**2),
        ({"name": "view_distance"}, 128, 8 * 2048 * 128),
        ({"name": "infonce"}, 128, 2 * 2048 * 2048 + 2048 * 128 + 2 * 2048 * 128 + 4 * 2048),
        ({"name": "information_bottleneck"}, 1024, 7 * 1024**2 + 8 * 2048 * 1024),
        ({"name": "information_bottleneck"}, 8192, 7 * 4096**2 + 8 * 2048 * 8192),  # by the samples of both views
        ({"name": "simsiam"}, 1024, 2 * 2048 * (6 * 1024 + 3 * 256)),
        ({"name": "simsiam", "predictor_width": 64}, 1024, 2 * 2048 * (6 * 1024 + 3 * 64)),
        (
            {"name": "pcl", "queue": 4096, "clusters": [10, 50], "negatives": 30},
            128,
            (4096 + 60) * 128 + 2 * 2048 * (4096 + 10 + 31),
        ),
    ],
)
def test_the_memory_that_it_takes(objective: dict[str, Any], features: int, held: int) -> None:
    spec = parse_spec({**BASE, "projector": {"widths": [128]}, "objective": objective})
    assert isinstance(spec, PretrainSpec)
    assert spec.objective.numbers_held(samples=2048, features=features, ranks=1) == held
    assert 1024**2 <= BUDGET < 65536**2


@pytest.mark.parametrize(
    ("changes", "pointer", "said"),
    [
        ({"objective": {"queue": 1000}}, "/objective/queue", "use 768 or 1024, or another batch_size"),
        ({"objective": {"queue": 100}}, "/objective/queue", "whole batches of 256; use 256, or another batch_size"),
        (
            {"objective": {"queue": 2560}},
            "/objective/queue",
            "above the 2000 images of the run: an image would be told",
        ),
        ({"objective": {"queue": 2560}}, "/objective/queue", "use at most 1792, a multiple of batch_size 256"),
        ({"objective": {"clusters": [10, 2001]}}, "/objective/clusters", "2001 clusters of 2000 images would leave"),
        ({"objective": {"clusters": []}}, "/objective/clusters", "at least 1 item"),
        ({"objective": {"warmup_epochs": 50}}, "/objective/warmup_epochs", "leaves none of 50 with prototypes"),
        (
            {"max_steps": 2, "objective": {"warmup_epochs": 3}},
            "/objective/warmup_epochs",
            "leaves none of 1 with prototypes",
        ),
        ({"micro_batch": 128}, "/micro_batch", "objective pcl takes whole batches: its loss is no function"),
    ],
)
def test_what_pcl_needs_of_the_run(changes: dict[str, Any], pointer: str, said: str) -> None:
    plain = {"name": "pcl", "queue": 512, "clusters": [10]}
    whole = {"data": {"name": "digits", "limit": 2000}, "batch_size": 256, "epochs": 50, "objective": plain}
    parse_spec({**BASE, **whole})
    found = faults({**whole, **changes, "objective": {**plain, **changes.get("objective", {})}})
    assert found.keys() == {pointer}
    assert said in found[pointer]


def test_what_pcl_needs_is_told_at_submit_where_the_data_set_is_counted() -> None:
    spec = parse_spec({**BASE, "batch_size": 256, "objective": {"name": "pcl", "queue": 512, "clusters": [10, 300]}})
    assert spec.faults_of_size(512, 10, "the split") == []
    found = {fault.pointer: fault.message for fault in spec.faults_of_size(299, 10, "the split")}
    assert found.keys() == {"/objective/queue", "/objective/clusters"}
    assert found["/objective/clusters"].endswith("a tenth of the images or less (the split)")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objective": {"sub_batch": 64}}, "sub-batches of 64 leave the covariance of 64 features singular, of a rank"),
        ({"objective": {"sub_batch": 64}}, "of a rank below 64; use 128, or another divisor of batch_size above 64"),
        ({"objective": {"sub_batch": 100}}, "of 100 do not divide batch_size 256; use 128, or another divisor"),
        ({"batch_size": 300}, "of 128 do not divide batch_size 300; use 150, or another divisor"),
        (
            {"projector": {}},
            "sub-batches of 16384 do not divide batch_size 256, and batch_size 256 is not above the",
        ),
        ({"projector": {}}, "end projector.widths in at most 128, half of the batch, or raise batch_size to 16384"),
    ],
)
def test_what_whitening_needs_of_batch_and_width(changes: dict[str, Any], said: str) -> None:
    whole = {"batch_size": 256, "projector": {"widths": [128, 64]}, "objective": {"name": "w_mse"}}
    parse_spec({**BASE, **whole})
    objective = {**whole["objective"], **changes.get("objective", {})}  # type: ignore[dict-item]
    found = faults({**whole, **changes, "objective": objective, "epochs": 0})
    assert "/epochs" in found
    found = faults({**whole, **changes, "objective": objective})
    assert found.keys() == {"/objective/sub_batch"}
    assert said in found["/objective/sub_batch"]


def test_partitions_of_the_whole_batch_are_one() -> None:
    whole = {"batch_size": 256, "projector": {"widths": [64]}}
    found = faults({**whole, "objective": {"name": "w_mse", "iterations": 8, "sub_batch": 256}})
    assert found.keys() == {"/objective/iterations"}
    assert "leave iterations out, or take a sub_batch below batch_size" in found["/objective/iterations"]


@pytest.mark.parametrize(
    "objective",
    [
        {"name": "vicreg", "variance": 0, "epsilon": 1e-4},
        {"terms": "on_diagonal", "lambda": 0.0051},
        {"terms": "off_diagonal", "redundancy": "auto", "stop_gradient": True},
        {"redundancy": "auto_a", "stop_gradient": True},
    ],
)
def test_a_default_that_is_written_out_is_no_fault(objective: dict[str, Any]) -> None:
    """A stored spec has them all."""
    assert parse_spec(given(**objective).resolved()) == given(**objective)


@pytest.mark.parametrize(
    ("objective", "field", "said"),
    [
        ({"normalisation": "none", "form": "dual"}, "form", "only where every C_ii is drawn to 1"),
        ({"normalisation": "feature", "form": "dual"}, "form", "only where every C_ii is drawn to 1"),
        ({"terms": "off_diagonal", "form": "dual"}, "form", "only where every C_ii is drawn to 1"),
        ({"terms": "on_diagonal", "form": "direct"}, "form", "terms on_diagonal has none"),
        (
            {"loss": "cross_entropy", "temperature": 0.1, "form": "sharded"},
            "form",
            "never has all entries of C at once",
        ),
        ({"factor": 8.0}, "factor", "leave it out, or set `normalisation: feature`"),
        ({"terms": "on_diagonal", "redundancy": "auto"}, "redundancy", "leave one of the two out"),
        ({"loss": "cross_entropy", "temperature": 1, "normalisation": "none"}, "loss", "no least value without"),
        ({"loss": "cross_entropy"}, "temperature", "the paper does not publish its own; write one out"),
        ({"loss": "cross_entropy", "temperature": 0}, "temperature", "use a value above 0, for example 0.1"),
        ({"temperature": 0.1}, "temperature", "only loss cross_entropy has a temperature"),
        ({"predictor_width": 1}, "predictor_width", "greater than or equal to 2"),
        ({"terms": "on_diagonal", "lambda": 0.01}, "lambda", "has none; leave one of the two out"),
        (
            {"loss": "cross_entropy", "temperature": 1, "form": "direct"},
            "form",
            "in any case; leave objective.form out",
        ),
        (
            {"terms": "off_diagonal", "redundancy": "auto_a", "stop_gradient": True},
            "stop_gradient",
            "of view a alone, so no gradient goes through view b anyhow",
        ),
        ({"name": "vicreg", "variance": 0, "epsilon": 0.1}, "epsilon", "whose weight, variance, is 0; leave it out"),
        ({"name": "view_distance", "epsilon": 0.1}, "epsilon", "whose weight, variance, is 0; leave it out"),
    ],
)
def test_variants_of_barlow_twins_that_cannot_be_are_refused(objective: dict[str, Any], field: str, said: str) -> None:
    found = faults({"objective": objective})
    assert found.keys() == {f"/objective/{field}"}
    assert said in found[f"/objective/{field}"]


def test_all_faults_of_a_variant_are_told_at_once() -> None:
    asked = {"loss": "cross_entropy", "normalisation": "none", "form": "dual", "factor": 2, "redundancy": "auto"}
    found = faults({"objective": {**asked, "terms": "on_diagonal"}})
    fields = {"form", "factor", "redundancy", "loss", "temperature"}
    assert found.keys() == {f"/objective/{field}" for field in fields}


@pytest.mark.parametrize(
    ("objective", "held"),
    [
        ({"terms": "on_diagonal"}, 0),
        ({"normalisation": "none"}, 4096**2),
        ({"redundancy": "auto"}, 2048**2),
        ({"loss": "cross_entropy", "temperature": 0.1}, 3 * 4096**2),
        ({"predictor_width": 64}, 2048**2 + 2048 * (3 * 64 + 2 * 4096)),
        ({"normalisation": "feature"}, 4096**2 + 6 * 2048 * 4096),
    ],
)
def test_the_memory_that_a_variant_takes(objective: dict[str, Any], held: int) -> None:
    """Of 2,048 images at 4,096 features the dual form is exact, where there is one."""
    assert given(**objective).objective.numbers_held(samples=2048, features=4096, ranks=1) == held


def test_the_default_of_every_field_of_a_variant_is_the_paper_s_equation() -> None:
    written_out = {
        "normalisation": "pearson", "factor": None, "redundancy": "cross", "terms": "both", "loss": "squares",
        "temperature": None, "stop_gradient": False, "predictor_width": None,
    }  # fmt: skip
    assert written_out.keys() == BarlowTwinsSpec.model_fields.keys() - {"name", "lambda_", "form"}
    assert digest(given(**written_out)) == digest(given())
    others = [{"normalisation": "none"}, {"redundancy": "auto"}, {"terms": "on_diagonal"}, {"stop_gradient": True}]
    assert len({digest(given(**one)) for one in [{}, *others, {"predictor_width": 64}]}) == 6
