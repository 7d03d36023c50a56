import pytest
import torch

from vllm_csp.sam.embedding_cache import EmbeddingCache, ImageEmbedding


def entry(value: float = 0.0) -> ImageEmbedding:
    return ImageEmbedding(torch.full((256, 2, 2), value), (683, 1024), (400, 600))


def filled(max_entries: int, *keys: str) -> EmbeddingCache:
    cache = EmbeddingCache(max_entries)
    for key in keys:
        cache.put(key, entry())
    return cache


def test_hits_and_misses_are_counted() -> None:
    cache = filled(2)
    stored = entry(3.0)
    assert cache.get("a") is None
    cache.put("a", stored)
    assert cache.get("a") is stored
    assert (cache.hits, cache.misses, len(cache)) == (1, 1, 1)


def test_asking_whether_it_is_held_is_no_use() -> None:
    cache = filled(2, "a", "b")
    assert "a" in cache
    cache.put("c", entry())
    assert "a" not in cache
    assert (cache.hits, cache.misses) == (0, 0)


def test_least_recently_used_goes_first() -> None:
    cache = filled(2, "a", "b")
    cache.get("a")
    cache.put("c", entry())
    assert "a" in cache
    assert "b" not in cache


def test_pinned_entries_stay_and_may_exceed_the_limit() -> None:
    cache = filled(1, "a")
    cache.pin("a")
    cache.put("b", entry(), pin=True)
    assert len(cache) == 2
    cache.put("c", entry())
    assert "c" not in cache
    assert len(cache) == 2


def test_unpinning_evicts_what_is_over_the_limit() -> None:
    cache = filled(1, "a")
    cache.pin("a")
    cache.put("b", entry(), pin=True)
    cache.unpin("a")
    assert "a" not in cache
    cache.unpin("b")
    assert "b" in cache


def test_as_many_unpins_as_pins() -> None:
    cache = filled(1)
    cache.put("a", entry(), pin=True)
    cache.pin("a")
    assert cache.pin_count("a") == 2
    cache.unpin("a")
    cache.put("b", entry())
    assert "a" in cache
    cache.unpin("a")
    assert cache.pin_count("a") == 0


def test_zero_entries_keeps_only_pinned() -> None:
    cache = filled(0, "a")
    assert len(cache) == 0
    cache.put("b", entry(), pin=True)
    assert "b" in cache
    cache.unpin("b")
    assert len(cache) == 0


def test_putting_again_replaces_and_keeps_pins() -> None:
    cache = filled(1)
    cache.put("a", entry(1.0), pin=True)
    newer = entry(2.0)
    cache.put("a", newer)
    assert cache.get("a") is newer
    assert cache.pin_count("a") == 1


def test_a_pin_may_come_before_the_image() -> None:
    cache = filled(1, "a")
    cache.pin("b")
    cache.put("b", entry())
    cache.put("c", entry())
    assert "b" in cache
    assert cache.num_pinned == 1
    cache.unpin("b")
    assert cache.num_pinned == 0


def test_wrong_use_is_refused() -> None:
    with pytest.raises(KeyError):
        filled(1, "a").unpin("a")
    with pytest.raises(ValueError, match="negative"):
        EmbeddingCache(-1)
