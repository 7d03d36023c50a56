"""One row of a batch: a chat request with its id, and what the output repeats of it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Subject:
    """What a row asks about, repeated in the output for readers that have no input at hand.

    image: path or URL as the input writes it, none for one within the request; image_id,
    category_id, category: as in COCO.
    """

    image: str | None = None
    question: str | None = None
    image_id: int | None = None
    category_id: int | None = None
    category: str | None = None

    def fields(self) -> dict[str, Any]:
        """Those that are known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Row:
    """A chat request.

    place: line of the input, or how many rows came before; file: local image to send in the place
    of the address in `body`; image_key: the same for rows about the same image; weight: bytes that
    a large `body` takes.
    """

    custom_id: str
    place: int
    body: dict[str, Any]
    subject: Subject
    image_key: str
    file: str | None = None
    weight: int = 0

    def fingerprint(self) -> str:
        """16 hex digits that name the id and the request as the input writes them."""
        text = json.dumps([self.custom_id, self.body], sort_keys=True)
        return hashlib.blake2b(text.encode("ascii"), digest_size=8).hexdigest()

    def body_with(self, image_url: str) -> dict[str, Any]:
        """The request with another address of its image."""
        place = _image_place(self.body)
        if place is None:
            return self.body
        # Copies of what holds the address, and of nothing else: the rest may be large and deep.
        messages = list(self.body["messages"])
        message = messages[place[0]]
        content = list(message["content"])
        part = content[place[1]]
        content[place[1]] = {**part, "image_url": {**part["image_url"], "url": image_url}}
        messages[place[0]] = {**message, "content": content}
        return {**self.body, "messages": messages}


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that is not asked, and why; custom_id: where it could be read."""

    place: int
    code: str
    message: str
    custom_id: str | None = None


def image_address(body: dict[str, Any]) -> dict[str, Any] | None:
    """The object with the `url` of a chat's first image."""
    place = _image_place(body)
    if place is None:
        return None
    address: dict[str, Any] = body["messages"][place[0]]["content"][place[1]]["image_url"]
    return address


def _image_place(body: dict[str, Any]) -> tuple[int, int] | None:
    """In which message a chat's first image is, and which part of it."""
    messages = body.get("messages")
    for number, message in enumerate(messages if isinstance(messages, list) else []):
        content = message.get("content") if isinstance(message, dict) else None
        for index, part in enumerate(content if isinstance(content, list) else []):
            address = part.get("image_url") if isinstance(part, dict) else None
            if isinstance(address, dict) and isinstance(address.get("url"), str):
                return number, index
    return None


def local_file(address: str, folder: Path) -> str | None:
    """The file that an image's address means, none for one that the server is to fetch.

    A path without a scheme starts in `folder`.
    """
    scheme = _SCHEME.match(address)
    if scheme is None:
        # `Path` interns the parts of paths, and Python's table of interned strings grows.
        return os.path.join(folder, address)
    if scheme[1].lower() != "file":
        return None
    try:
        return unquote(urlsplit(address).path)
    except ValueError:
        return address  # Not an address; reading it will say so.


def key_of(address: str, file: str | None) -> str:
    """One name for all rows about the image at an address."""
    if file is not None:
        return file
    if address.startswith("data:"):
        return hashlib.blake2b(address.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return address
