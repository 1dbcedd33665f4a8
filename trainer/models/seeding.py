"""Weights drawn from a seed of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def drawn_from(seed: int, part: str) -> Iterator[None]:
    """Within: torch's CPU generator starts from (seed, part); after: it stands where it stood before.

    Parts of one seed draw unrelated numbers. No CUDA generator is touched: modules are initialised on the CPU.
    """
    digest = hashlib.sha256(f"{part} {seed}".encode()).digest()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        yield
