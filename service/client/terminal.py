"""What the command line writes to a terminal: texts of others drive none, and no bracket in them is a style."""

from __future__ import annotations

from collections.abc import Iterable

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from barlow_lab.foreign_text import shown_lines


class Terminal(Console):
    """A console that shows what is no character to be seen as its escape; styles are its own alone."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of what is printed, their texts escaped."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else shown_lines(segment.text)
            yield segment if text == segment.text else Segment(text, segment.style)


def console() -> Console:
    """Standard output. In a pipe nothing is cut: the reader is a program."""
    found = Terminal(highlight=False, soft_wrap=True, markup=False, emoji=False)
    if found.is_terminal:
        return found
    return Terminal(highlight=False, width=1000, soft_wrap=True, markup=False, emoji=False)


def say(text: str, *, nl: bool = True) -> None:
    """Lines to standard output."""
    typer.echo(shown_lines(text), nl=nl)


def say_error(text: str) -> None:
    """Lines to standard error, in red on a terminal."""
    typer.secho(shown_lines(text), err=True, fg=typer.colors.RED)
