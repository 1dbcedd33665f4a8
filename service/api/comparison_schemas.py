"""What the API answers of jobs side by side, as models."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from service.api.schemas import JobBrief
from service.comparison.models import Evaluated, ScoreRow, SeedGroup


class ComparedJob(JobBrief):
    """A job that is compared."""

    experiment: str = Field(description="Name of its experiment")
    spec_digest: str = Field(description="Equal for the same science")


class Difference(BaseModel):
    """One value in which the jobs differ; `values` in the order of `jobs`, null where a job has none."""

    name: str = Field(description="Of the value")
    values: list[Any] = Field(description="In the order of `jobs`, null where a job has none")


class Comparison(BaseModel):
    """Jobs side by side."""

    jobs: list[ComparedJob] = Field(description="Those that were asked for")
    evaluations: list[Evaluated] = Field(description="Results of the evaluations among them")
    backbones: list[str] = Field(description="The backbones that were judged: columns of `scores`")
    groups: list[SeedGroup] = Field(description="Which of these columns are several seeds")
    scores: list[ScoreRow] = Field(description="The same results lined up: what was measured by whose backbone")
    spec: list[Difference] = Field(
        description="Fields of the specs that differ, by JSON pointer; this and what follows for named jobs alone"
    )
    metrics: list[Difference] = Field(description="The last value of every metric")
    results: list[Difference] = Field(description="Every number and word of the results, by JSON pointer")
