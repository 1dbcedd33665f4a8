"""What clients see of a page of a list (no FastAPI)."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel, Field

Item = TypeVar("Item")


class Page(BaseModel, Generic[Item]):
    """One page of a list."""

    items: list[Item] = Field(description="Those of this page, in the order of the list")
    next_page_token: str | None = Field(None, description="Absent on the last page")
