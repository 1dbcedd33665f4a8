"""Objectives of one's own: registered by an installed distribution, and chosen by name like those of the house.

The entry point names a subclass of ObjectiveBase with

- `name: Literal["NAME"]`, the name of the entry point and without a default, since it counts in the digest;
- `implementation = "MODULE:CLASS"`, the trainer.objectives.base.Objective, which the trainer alone imports.

Its module is imported wherever specs are checked. One file may hold both classes where torch is installed there, too;
the API's image has none, and there the spec needs a module that imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ConfigDict, Field, TypeAdapter

from barlow_lab.foreign_text import shown
from barlow_lab.specs.common import refuse
from barlow_lab.specs.objectives.base import ObjectiveBase
from barlow_lab.specs.registered import OBJECTIVES, registered


class FaultyObjective(ValueError):
    """What is registered under a name is no objective; says which, why and the remedy."""


def names_of_own() -> list[str]:
    """The names that installed distributions have registered."""
    return list(registered(OBJECTIVES))


def own_objective(name: str) -> type[ObjectiveBase] | None:
    """The spec that is registered as `name`; None: none is.

    Raises:
        FaultyObjective: it cannot be imported, or is not what the spec of an objective has to be.
    """
    entry = registered(OBJECTIVES).get(name)
    if entry is None:
        return None
    try:
        found = entry.load()
    except Exception as error:  # code of others may raise anything
        raise FaultyObjective(refusal(name, entry.value, f"cannot be imported ({error_in_words(error)})")) from error
    if not (isinstance(found, type) and issubclass(found, ObjectiveBase)):
        raise FaultyObjective(refusal(name, entry.value, "is no subclass of barlow_lab.specs.ObjectiveBase"))
    field = found.model_fields.get("name")
    if field is None or get_origin(field.annotation) is not Literal or get_args(field.annotation) != (name,):
        raise FaultyObjective(refusal(name, entry.value, f'has no field `name: Literal["{name}"]`'))
    if not field.is_required():
        said = "gives its name a default, so that a digest would not tell it from another objective"
        raise FaultyObjective(refusal(name, entry.value, said))
    if getattr(found, "__abstractmethods__", None):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise FaultyObjective(refusal(name, entry.value, f"does not define {missing}"))
    if not isinstance(getattr(found, "memory_words", None), str):
        raise FaultyObjective(refusal(name, entry.value, "does not say its `memory_words`"))
    if not isinstance(getattr(found, "implementation", None), str) or ":" not in found.implementation:
        raise FaultyObjective(refusal(name, entry.value, "does not say its `implementation`, MODULE:CLASS"))
    return found


def refusal(name: str, place: str, said: str) -> str:
    """What to say of an objective that is registered, and is none."""
    return shown(f"objective {name!r} ({place}) {said}; mend it where it is defined")


def error_in_words(error: Exception) -> str:
    """An exception of others' code in one line."""
    return f"{type(error).__name__}: {error}"


def or_own(house: tuple[type[ObjectiveBase], ...]) -> Callable[[Any, Callable[[Any], ObjectiveBase]], ObjectiveBase]:
    """A validator around that of the union of `house`: what has the name of an own objective is one of these."""
    taken = {name for model in house for name in get_args(model.model_fields["name"].annotation)}

    def validated(value: Any, by_the_house: Callable[[Any], ObjectiveBase]) -> ObjectiveBase:
        name = value.get("name") if isinstance(value, Mapping) else getattr(value, "name", None)
        if not isinstance(name, str) or name in taken:
            return by_the_house(value)
        try:
            model = own_objective(name)
        except FaultyObjective as error:
            refuse({("name",): str(error)})
            raise
        return by_the_house(value) if model is None else _beside(house[0], model).validate_python(value)

    return validated


def faults_beside(
    spec: ObjectiveBase, *, batch_size: int, width: int | None, ranks: int, epochs: int, images: int | None
) -> dict[str, str]:
    """Field → what is wrong with it beside this batch, ranks, epochs and (where their number and width are known)
    images and embeddings; code that fails is a fault, too."""
    try:
        of_run = spec.faults_of_run(batch_size=batch_size, epochs=epochs, images=images)
        if width is None:
            return {str(field): str(said) for field, said in of_run.items()}
        found = {**spec.faults(batch_size=batch_size, width=width), **of_run}
        held = spec.numbers_held(samples=batch_size, features=width, ranks=ranks)
        if not isinstance(held, int) or held < 0:
            raise ValueError(f"numbers_held gives {held!r}, not a number of numbers")
        trained = spec.trained_numbers(width)
        if not isinstance(trained, int) or trained < 0:
            raise ValueError(f"trained_numbers gives {trained!r}, not a number of numbers")
        return {str(field): str(said) for field, said in found.items()}
    except Exception as error:
        if (entry := registered(OBJECTIVES).get(spec.name)) is None:
            raise
        return {"name": refusal(spec.name, entry.value, f"cannot be asked ({error_in_words(error)})")}


@cache
def _beside(other: type[ObjectiveBase], model: type[ObjectiveBase]) -> TypeAdapter[Any]:
    """A reader of a union with `model`, so that faults stand where those of the house's objectives do: below the
    name."""
    union: Any = Annotated[Union[other, model], Field(discriminator="name")]  # noqa: UP007 (types of run time)
    return TypeAdapter(union)


class ObjectiveElsewhere(ObjectiveBase):
    """A stored one that is not installed here any more: its name, and no more is asked of it; the rest as it is."""

    model_config = ConfigDict(extra="allow")

    memory_words = "what is not known here"

    name: str

    def numbers_held(self, *, samples: int, features: int, ranks: int) -> int:
        """Never known.

        Raises:
            FaultyObjective: always.
        """
        raise FaultyObjective(f"objective {self.name!r} is not installed here; install the distribution that has it")
