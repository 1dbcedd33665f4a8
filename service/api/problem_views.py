"""What clients see of a problem (no FastAPI)."""

from __future__ import annotations

from pydantic import BaseModel, Field

from service.ledger.states import JobState, Verb


class FaultView(BaseModel):
    """One fault: where it stands and what to do about it."""

    pointer: str | None = Field(None, description="RFC 6901 JSON pointer into the body")
    parameter: str | None = Field(None, description="Name of the query parameter or header")
    message: str = Field(description="What is wrong, with its remedy")


class ProblemDetails(BaseModel):
    """RFC 9457 problem details."""

    type: str = Field(description="Stable; a page that explains the problem")
    title: str = Field(description="In a few words")
    status: int = Field(description="That of the answer")
    detail: str = Field(description="What is wrong here, with its remedy")
    instance: str = Field(description="What was asked")
    errors: list[FaultView] = Field(default_factory=list, description="Every fault that was found, the first 100")
    errors_left_out: int | None = Field(None, description="How many more faults there are, where some are not named")
    state: JobState | None = Field(None, description="Of illegal-verb: where the job is")
    legal_verbs: list[Verb] | None = Field(None, description="Of illegal-verb: what may be asked of the job now")
