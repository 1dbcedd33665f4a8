"""The protocols that train on labelled images have the numbers of their sources, and refuse what cannot be run."""

import math

import labelled_runs
import pytest
from labelled_runs import KINDS

from barlow_lab.specs import LinearSpec, SemiSupervisedSpec, SpecError, parse_spec
from trainer.evaluation.fitting import rate_at


def document(kind="linear", **fields):
    """A spec with nothing but what it must say."""
    labels = {"labels": {"percent": 10}} if kind == "semi_supervised" else {}
    found = parse_spec({"kind": kind, "data": "imagenet", "backbone_from": {"job": "p"}, **labels, **fields})
    assert isinstance(found, LinearSpec | SemiSupervisedSpec)
    return found


def test_the_rates_of_the_protocols_are_the_documents():
    # B.2: multiplied by 0.2 after the 12th and the 16th of 20 epochs; 7 steps an epoch.
    schedule = document("semi_supervised").schedule
    rates = [rate_at(schedule, done, 140) for done in range(140)]
    assert rates == pytest.approx([1.0] * 84 + [0.2] * 28 + [0.04] * 28)
    # C.1: by 10 at two equally spaced points, to the next step where they are no whole step.
    places = document(protocol="places205").schedule
    rates = [rate_at(places, done, 14 * 5) for done in range(70)]
    assert rates == pytest.approx([1.0] * 24 + [0.1] * 23 + [0.01] * 23)
    naturalist = document(protocol="inaturalist2018").schedule
    assert [rate_at(naturalist, done, 84) for done in (27, 28, 55, 56)] == pytest.approx([1.0, 0.1, 0.1, 0.01])
    # B.1: a cosine to 0.
    cosine = document().schedule
    assert [rate_at(cosine, done, 100) for done in (0, 50, 75)] == pytest.approx([1, 0.5, (1 - math.sqrt(0.5)) / 2])


@pytest.mark.parametrize(
    ("fields", "epochs", "rate", "decay"),
    [
        ({}, 100, 0.3, 1e-6),
        ({"protocol": "places205"}, 14, 0.01, 5e-4),
        ({"protocol": "inaturalist2018"}, 84, 0.01, 5e-4),
    ],
)
def test_the_numbers_of_the_linear_protocols_are_the_documents(fields, epochs, rate, decay):
    spec = document(**fields)
    assert (spec.epochs, spec.learning_rate, spec.weight_decay) == (epochs, rate, decay)
    assert (spec.momentum, spec.batch_size, spec.departures()) == (0.9, 256, {})


@pytest.mark.parametrize(("fields", "backbone"), [({}, 0.002), ({"protocol": "cosine"}, 0.005)])
def test_the_numbers_of_the_semi_supervised_protocols_are_the_sources(fields, backbone):
    spec = document("semi_supervised", **fields)
    assert (spec.backbone_learning_rate, spec.learning_rate) == (backbone, 0.5)
    assert (spec.epochs, spec.weight_decay, spec.momentum, spec.batch_size) == (20, 0.0, 0.9, 256)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"batch_size": 10, "resources": {"slots": 4}}, "batch_size 10 is global and 4 ranks do not divide it"),
        ({"batch_size": 10, "data": {"name": "own", "limit": 9}}, "batch_size 10 is above data.limit 9"),
    ],
)
def test_a_batch_that_cannot_fit_is_refused_before_it_is_queued(kind, fields, said):
    with pytest.raises(SpecError, match=said) as refused:
        labelled_runs.spec(kind, **fields)
    assert [fault.pointer for fault in refused.value.faults] == ["/batch_size"]


def test_batch_normalisation_of_one_image_is_refused():
    with pytest.raises(SpecError, match="needs at least 2 images"):
        labelled_runs.spec("semi_supervised", batch_size=1)
