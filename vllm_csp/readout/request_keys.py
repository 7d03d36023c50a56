"""Keys of the requests whose mask queries are kept: only those that this process gives out count.

vLLM lets a client of any route put values beside its sampling parameters. Under a key of its own a
client's request would be held, and its image with it, with nobody to release either.
"""

from __future__ import annotations

import uuid

_given: set[str] = set()


def give_key() -> str:
    """A new key; `take_back` it when its request has been answered."""
    key = uuid.uuid4().hex
    _given.add(key)
    return key


def take_back(key: str) -> None:
    """No request may come with this key any more; unknown ones are fine."""
    _given.discard(key)


def is_given(key: object) -> bool:
    """Whether this process has given the key out and not taken it back."""
    return isinstance(key, str) and key in _given
