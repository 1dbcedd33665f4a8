"""The secrets of tokens: how one is made, and what is kept of it."""

from __future__ import annotations

import hashlib
import secrets


def new_secret() -> str:
    """The secret of a new token: 32 random bytes, marked so that scanners for leaked secrets find it."""
    return "barlow_" + secrets.token_urlsafe(32)


def sha256(secret: str) -> str:
    """What is stored of a token. No salt and no slow hash: nobody guesses 32 random bytes."""
    return hashlib.sha256(secret.encode()).hexdigest()
