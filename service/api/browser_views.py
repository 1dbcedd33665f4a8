"""Links into servers beside the API, and the sessions of browsers there, as the API shows them."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from service.callers import Role


class Entry(BaseModel):
    """A link for a browser."""

    url: str = Field(description="Open it in a browser; its page has a button that lets you in")
    expires_at: datetime | None = Field(description="When it leads nowhere any more; none: where no tokens are needed")


class EntryTarget(BaseModel):
    """Where a link leads."""

    service: str = Field(description="The server")
    path: str = Field(description="Of a page there")
    usable: bool = Field(description="Whether its code was not redeemed yet, and has not expired")


class SessionView(BaseModel):
    """A browser's session at one server."""

    service: str = Field(description="The one server that it opens")
    name: str = Field(description="Name of the token that the link was asked for with")
    user: str = Field(description="Whose token that is")
    role: Role = Field(description="What may be done")
    expires_at: datetime = Field(description="When it ends by itself")


class SessionMade(SessionView):
    """A new session, with its secret."""

    secret: str = Field(description="For the cookie; only a hash of it is kept")
    path: str = Field(description="Where the link leads")
    seconds: int = Field(description="So long it lasts at most")
