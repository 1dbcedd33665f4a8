"""Temperatures of objectives: the bound below which a loss diverges, and how it is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

LEAST_TEMPERATURE = 1e-3
"""Below it all but the nearest count for nothing, and the rounding of a cosine counts a thousandfold; the lowest in use
is about 0.01."""


def _bounded(divided: str, at_zero: str, near_zero: str, examples: str) -> Callable[[Any], Any]:
    def checked(temperature: Any) -> Any:
        if not isinstance(temperature, int | float) or temperature >= LEAST_TEMPERATURE:
            return temperature
        begin = f"{divided} are divided by the temperature: {temperature:g} leaves"
        if temperature <= 0:
            raise ValueError(f"{begin} {at_zero}; use a value above 0, for example {examples}")
        least = f"use at least {LEAST_TEMPERATURE:g}, rather 0.05 or more"
        raise ValueError(f"{begin} {near_zero}, and a loss that diverges; {least}")

    return checked


OfCosines = Annotated[
    float,
    Field(ge=LEAST_TEMPERATURE),
    BeforeValidator(
        _bounded(
            "cosines",
            "no order of near and far, or turns it round",
            "of all images the nearest alone",
            "0.1 (SimCLR on ImageNet), 0.5 (on CIFAR-10) or 1 (plain cosines)",
        )
    ),
]
"""What cosines of images are divided by."""

OfCorrelations = Annotated[
    float,
    Field(ge=LEAST_TEMPERATURE),
    BeforeValidator(
        _bounded(
            "correlations",
            "no order of small and large, or turns it round",
            "of all correlations the largest alone",
            "0.1",
        )
    ),
]
"""What the entries of a correlation matrix are divided by."""
