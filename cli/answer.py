"""What a command answers."""

from typing import NamedTuple


class Answer(NamedTuple):
    """What a command answers.

    status: its exit status, 0 if it did what was asked
    output: what was asked for, for standard output
    message: what a person should know, for standard error; the reason if nothing was done
    """

    status: int
    output: str = ""
    message: str = ""
