"""Image embeddings kept by image, so that further questions about an image skip the encoder."""

from collections import OrderedDict
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vllm_csp.sam.encode_stream import Event


@dataclass(frozen=True)
class ImageEmbedding:
    """SAM's embedding of one image and what is needed to map masks back onto it.

    `embedding`: [C, h, w]. `input_size`: (h, w) of the resized image before padding,
    `original_size`: (H, W); both in pixels. `made`: the end of what makes the embedding, if that
    is another stream's work.
    """

    embedding: Tensor
    input_size: tuple[int, int]
    original_size: tuple[int, int]
    made: Event | None = None

    def in_order(self) -> Tensor:
        """The embedding, for what the current stream is given from here on."""
        if self.made is not None:
            self.made.wait()
        return self.embedding


class EmbeddingCache:
    """Least-recently-used cache of image embeddings, with pins for those still needed.

    What has no room on the device goes to the host's memory, if there is room for it, and comes
    back when it is looked up. Pinned entries stay on the device; only they can take it over
    `max_entries`. A key is any string that names the image's pixels, such as `images.image_key`.
    Not thread-safe.
    """

    def __init__(self, max_entries: int, max_host_entries: int = 0) -> None:
        """How many to keep on the device (0: pinned ones only) and how many beside them.

        Raises: ValueError below 0.
        """
        if min(max_entries, max_host_entries) < 0:
            raise ValueError(f"entries must not be negative: {max_entries}, {max_host_entries}")
        self.max_entries = max_entries
        self.max_host_entries = max_host_entries
        self.hits = 0
        self.host_hits = 0
        self.misses = 0
        self._entries: OrderedDict[str, ImageEmbedding] = OrderedDict()
        self._host: OrderedDict[str, ImageEmbedding] = OrderedDict()
        self._device = torch.device("cpu")
        self._pins: dict[str, int] = {}

    def __len__(self) -> int:
        """How many are on the device."""
        return len(self._entries)

    @property
    def num_on_host(self) -> int:
        """How many are in the host's memory."""
        return len(self._host)

    def __contains__(self, key: str) -> bool:
        """Whether the key is held; counts neither as use nor as hit or miss."""
        return key in self._entries or key in self._host

    def get(self, key: str) -> ImageEmbedding | None:
        """Look an image up and count a hit or a miss. Returns: None when it is not held."""
        self.host_hits += key in self._host
        entry = self.peek(key)
        self.hits += entry is not None
        self.misses += entry is None
        return entry

    def peek(self, key: str) -> ImageEmbedding | None:
        """Look an image up without counting. Returns: None when it is not held."""
        if key in self._host:
            entry = self._host.pop(key)
            # On the stream that copied it out, so neither copy is waited for.
            back = replace(entry, embedding=entry.embedding.to(self._device, non_blocking=True))
            self.put(key, back)
            return back
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def put(self, key: str, entry: ImageEmbedding) -> None:
        """Hold an image as the most recently used; evict others."""
        self._device = entry.embedding.device
        self._host.pop(key, None)
        self._entries[key] = entry
        self._entries.move_to_end(key)
        self._evict()

    def pin(self, key: str) -> None:
        """Protect an image from eviction until unpinned as often; it may come in later."""
        self._pins[key] = self._pins.get(key, 0) + 1

    def unpin(self, key: str) -> None:
        """Take one pin off. Raises: KeyError when the image is not pinned."""
        self._pins[key] -= 1
        if self._pins[key] == 0:
            del self._pins[key]
            self._evict()

    @property
    def num_pinned(self) -> int:
        """How many images are pinned."""
        return len(self._pins)

    def _evict(self) -> None:
        excess = len(self._entries) - self.max_entries
        if excess <= 0:
            return
        unpinned = [key for key in self._entries if key not in self._pins]
        for key in unpinned[:excess]:
            entry = self._entries.pop(key)
            if self.max_host_entries:
                copy = _to_host(entry.in_order())
                self._host[key] = replace(entry, embedding=copy, made=None)
        while len(self._host) > self.max_host_entries:
            self._host.popitem(last=False)


def _to_host(embedding: Tensor) -> Tensor:
    """A copy in the host's memory, on its way: only what follows on the same stream may read it."""
    if embedding.device.type == "cpu":
        return embedding
    pinned = torch.empty_like(embedding, device="cpu", pin_memory=True)
    return pinned.copy_(embedding, non_blocking=True)
