"""Image embeddings kept by image, so that further questions about an image skip the encoder."""

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ImageEmbedding:
    """SAM's embedding of one image and what is needed to map masks back onto it.

    `embedding`: [C, h, w]. `input_size`: (h, w) of the resized image before padding,
    `original_size`: (H, W); both in pixels.
    """

    embedding: Tensor
    input_size: tuple[int, int]
    original_size: tuple[int, int]


class EmbeddingCache:
    """Least-recently-used cache of image embeddings, with pins for those still needed.

    Pinned entries are never evicted; only they can take the cache over `max_entries`. A key is any
    string that names the image's pixels, such as `images.image_key`. Not thread-safe.
    """

    def __init__(self, max_entries: int) -> None:
        """`max_entries`: how many to keep; 0 keeps pinned ones only. Raises: ValueError below 0."""
        if max_entries < 0:
            raise ValueError(f"max_entries must not be negative: {max_entries}")
        self.max_entries = max_entries
        self.hits = 0
        self.misses = 0
        self._entries: OrderedDict[str, ImageEmbedding] = OrderedDict()
        self._pins: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        """Whether the key is held; counts neither as use nor as hit or miss."""
        return key in self._entries

    def get(self, key: str) -> ImageEmbedding | None:
        """Look an image up and count a hit or a miss. Returns: None when it is not held."""
        entry = self._entries.get(key)
        if entry is None:
            self.misses += 1
            return None
        self.hits += 1
        self._entries.move_to_end(key)
        return entry

    def peek(self, key: str) -> ImageEmbedding | None:
        """Look an image up without counting. Returns: None when it is not held."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: str, entry: ImageEmbedding, *, pin: bool = False) -> None:
        """Hold an image as the most recently used, pinned once more if asked; evict others."""
        self._entries[key] = entry
        self._entries.move_to_end(key)
        if pin:
            self.pin(key)
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

    def pin_count(self, key: str) -> int:
        """How many pins an image has."""
        return self._pins.get(key, 0)

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
            del self._entries[key]
