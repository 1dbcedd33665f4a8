"""What was measured of which backbone, as models; scores are in percent."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field


class EvaluationScore(BaseModel):
    """One score of an evaluation, in percent."""

    name: str = Field(description="Such as `top1`")
    last: float = Field(description="Of the last test: the one to quote")
    best: float = Field(description="Of the test with the highest headline, chosen on the split it is told of")
    published: float | None = Field(description="What run.published says of it")
    difference: float | None = Field(description="last less published, in points")


class Evaluated(BaseModel):
    """What came out of an evaluation; those that have not succeeded are not there."""

    job: UUID = Field(description="The evaluation")
    protocol: str = Field(description="Kind, protocol and version, as linear-document/1")
    departures: dict[str, Any] = Field(
        description='Fields that are not the protocol\'s: {field: {"protocol": its value, "here": the value}}'
    )
    data: str = Field(description="The data set, with what is not usual of its use")
    backbone: str = Field(description="Whose backbone was judged")
    headline: str = Field(description="The score that counts")
    scores: list[EvaluationScore] = Field(description="The headline first")
    published_in: str | None = Field(description="Citation of the published numbers")


class Cell(BaseModel):
    """One score of one backbone, or of one by several seeds: the mean over what was measured in the same way.

    Of several pretrainings it is the mean over these, of each that over its jobs; of one, over the jobs.
    """

    last: float = Field(description="Of the last test")
    best: float = Field(description="Of the test with the highest headline")
    deviation: float | None = Field(description="Sample standard deviation of `last`; null for a single one")
    n: int = Field(description="Pretrainings, or jobs of a single one, that the mean is over")
    published: float | None = Field(description="What run.published of its jobs says, where they agree")
    jobs: list[UUID] = Field(description="The evaluations that it is of")


class ScoreRow(BaseModel):
    """One score, measured in one way; `cells` in the order of `backbones`, null where a backbone was not judged so."""

    protocol: str = Field(description="Kind, protocol and version")
    data: str = Field(description="The data set, with what is not usual of its use")
    variant: str = Field(description="In what it differs from other rows of this protocol and data; mostly nothing")
    score: str = Field(description="Its name")
    headline: bool = Field(description="It is the score that counts")
    cells: list[Cell | None] = Field(description="In the order of `backbones`")
    published: float | None = Field(description="What all say that say something; null also where they do not agree")


class SeedGroup(BaseModel):
    """Pretrainings of an experiment that differ in their seed alone: one of `backbones`."""

    backbone: str = Field(description="The column")
    jobs: list[UUID] = Field(description="The pretrainings")
    seeds: list[int] = Field(description="Of each")
