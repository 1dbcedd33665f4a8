"""Commands as an account without rights runs them, wherever the checkout and its environment lie."""

from __future__ import annotations

from service.local.process import _privileges


def without_rights() -> list[str]:
    """The beginning of such a command; nothing where this account has none itself."""
    return _privileges(None, unprivileged=True)
