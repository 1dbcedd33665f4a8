"""Tokens as the API takes and shows them. A secret stands in one answer only: that of the request that makes it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from barlow_lab.specs.common import Name
from service.callers import Role

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
LONGEST = timedelta(days=3650)
DURATION_RULE = "a whole number and m, h, d or w (minutes to weeks) is expected, up to ten years: for example 90d"


def duration(text: str) -> timedelta:
    """The time that a text like 90d means.

    Raises:
        ValueError: it means none, or one longer than LONGEST.
    """
    number, unit = text[:-1], text[-1:]
    if unit in _UNITS and len(number) <= 7 and number.isascii() and number.isdecimal() and int(number) > 0:
        found = timedelta(**{_UNITS[unit]: int(number)})
        if found <= LONGEST:
            return found
    raise ValueError(DURATION_RULE)


def _is_a_duration(text: str) -> str:
    duration(text)
    return text


class TokenRequest(BaseModel):
    """A token to make."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {"name": "alice-laptop", "user": "alice", "role": "submitter", "expires_in": "90d"}
        },
    )

    name: Name = Field(description="Of this token: stands in the events of what is done with it; never used again")
    user: Name | None = Field(
        None, description="Whose it is, and whose the jobs are that it submits; left out: a user of the token's name"
    )
    role: Role = Field(description="What may be done with it")
    expires_in: Annotated[str, AfterValidator(_is_a_duration)] | None = Field(
        None, description="How long it is valid: a number and m, h, d or w. Left out: until it is revoked"
    )


class TokenView(BaseModel):
    """A token, without its secret."""

    name: str = Field(description="Never used again")
    user: str = Field(description="Whose it is")
    role: Role = Field(description="What may be done with it")
    created_at: datetime = Field(description="When it was made")
    created_by: str = Field(description="Name of the token it was made with")
    expires_at: datetime | None = Field(description="When it ends by itself")
    revoked_at: datetime | None = Field(description="When somebody ended it")


class TokenMade(TokenView):
    """A new token, with its secret."""

    secret: str = Field(description="Shown this once; only a hash of it is kept")


class Tokens(BaseModel):
    """All tokens but the one that the settings hold."""

    items: list[TokenView] = Field(description="Revoked ones, too")


class Whoami(BaseModel):
    """Who asks."""

    name: str = Field(description="Name of the token; `anonymous` where no tokens are needed")
    user: str = Field(description="Whose it is: the owner of the jobs that it submits")
    role: Role = Field(description="What may be done")
    expires_at: datetime | None = Field(description="When the token ends by itself")


class AuditView(BaseModel):
    """One act."""

    id: int = Field(description="Rises")
    at: datetime = Field(description="When it was done")
    actor: str = Field(description="Name of the token it was done with")
    user: str = Field(description="Whose token that is")
    action: str = Field(
        description="token.create, token.revoke, slot.release, mlflow.rebuild, mlflow.runs.delete and the like"
    )
    subject: str = Field(description="What it was done to")
    address: str | None = Field(description="Where the request came from")
    detail: dict[str, Any] = Field(description="What else there is to say of it")
