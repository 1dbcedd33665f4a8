"""Why a submission is not taken, in the terms of admission; the API makes an answer of each in one place."""

from __future__ import annotations

from collections.abc import Sequence

from barlow_lab.specs import Fault
from barlow_lab.specs.parsing import and_more


class Refused(Exception):
    """Nothing is made. `faults` are the fields of the body that it is due to, the first of them where they are many;
    `left_out` is how many more there are."""

    def __init__(self, said: str, faults: Sequence[Fault] = (), left_out: int = 0) -> None:
        super().__init__(said)
        self.faults = list(faults)
        self.left_out = left_out


class InvalidSpec(Refused):
    """The body has faults, each at its field."""

    def __init__(self, faults: Sequence[Fault], left_out: int = 0) -> None:
        said = [f"{fault.pointer or 'body'}: {fault.message}" for fault in faults]
        super().__init__("; ".join([*said, and_more(left_out)] if left_out else said), faults, left_out)


class NameTaken(Refused):
    """A job or an experiment of this name is there."""

    def __init__(self, said: str) -> None:
        super().__init__(said, [Fault("/name", said)])


class TooManyOpenJobs(Refused):
    """The user would have more open jobs than one may have."""
