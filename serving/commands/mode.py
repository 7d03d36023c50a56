"""An option of several commands: whether the model writes an answer."""

from enum import StrEnum


class Mode(StrEnum):
    """How masks come about."""

    GENERATE = "generate"
    FORCE = "force"
