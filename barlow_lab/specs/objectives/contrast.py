"""What the objectives that tell images apart by cosines share: the memory of those cosines."""

from __future__ import annotations

BLOCK = 2**22
"""Cosines that a rank holds at once: 16 MiB of float32, where all of a batch of 4,096 images are 256 MiB."""

BLOCKS = 2
"""So many blocks of them lie side by side: a block, and its exponentials."""


def rows_of_a_block(rows: int, columns: int) -> int:
    """How many of this rank's `rows` are compared with all `columns` at once."""
    return max(1, min(rows, BLOCK // columns))


def numbers_of_cosines(*, samples: int, columns: int, features: int, ranks: int) -> int:
    """Most numbers that a rank holds at once: both views of its images with length 1, where there are several ranks
    those of all, what is kept of each of `columns` columns, and blocks of cosines beside the rows they are made of."""
    rows = samples // ranks
    block = rows_of_a_block(rows, columns)
    gathered = 2 * samples * features if ranks > 1 else 0
    return 2 * rows * features + gathered + 4 * columns + block * (BLOCKS * columns + features)
