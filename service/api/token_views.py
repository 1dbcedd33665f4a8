"""Tokens as the API takes and shows them. A secret stands in one answer only: that of the request that makes it."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from service.api.roles import Role
from trainer.specs.common import Name


class TokenRequest(BaseModel):
    """A token to make."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"name": "alice", "role": "submitter"}})

    name: Name = Field(description="Whose it is: stands in the events of what is done with it; never used again")
    role: Role


class TokenView(BaseModel):
    """A token, without its secret."""

    name: str
    role: Role
    created_at: datetime
    created_by: str = Field(description="Name of the token it was made with")
    revoked_at: datetime | None


class TokenMade(TokenView):
    """A new token, with its secret."""

    secret: str = Field(description="Shown this once; only a hash of it is kept")


class Tokens(BaseModel):
    """All tokens but the one that the settings hold."""

    items: list[TokenView]


class Whoami(BaseModel):
    """Who asks."""

    name: str = Field(description="Name of the token; `anonymous` where no tokens are needed")
    role: Role
