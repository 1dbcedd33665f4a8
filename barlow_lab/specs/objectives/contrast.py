"""What the objectives that tell images apart by cosines share: their temperature, and the memory of those cosines."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

BLOCK = 2**22
"""Cosines that a rank holds at once: 16 MiB of float32, where all of a batch of 4,096 images are 256 MiB."""

BLOCKS = 2
"""So many blocks of them lie side by side: a block, and its exponentials."""


LEAST_TEMPERATURE = 1e-3
"""Below it all but the nearest count for nothing, and the rounding of a cosine counts a thousandfold; the lowest in use
is about 0.01."""


def _above_zero(temperature: Any) -> Any:
    if isinstance(temperature, int | float) and temperature <= 0:
        raise ValueError(
            f"cosines are divided by the temperature: {temperature:g} leaves no order of near and far, or turns it "
            "round; use a value above 0, for example 0.1 (SimCLR on ImageNet), 0.5 (on CIFAR-10) or 1 (plain cosines)"
        )
    if isinstance(temperature, int | float) and temperature < LEAST_TEMPERATURE:
        raise ValueError(
            f"cosines are divided by the temperature: {temperature:g} leaves of all images the nearest alone, and a "
            f"loss that diverges; use at least {LEAST_TEMPERATURE:g}, rather 0.05 or more"
        )
    return temperature


Temperature = Annotated[float, Field(ge=LEAST_TEMPERATURE), BeforeValidator(_above_zero)]


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
