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
    cache.pin("b")
    cache.put("b", entry())
    assert len(cache) == 2
    cache.put("c", entry())
    assert "c" not in cache
    assert len(cache) == 2


def test_unpinning_evicts_what_is_over_the_limit() -> None:
    cache = filled(1, "a")
    cache.pin("a")
    cache.pin("b")
    cache.put("b", entry())
    cache.unpin("a")
    assert "a" not in cache
    cache.unpin("b")
    assert "b" in cache


def test_as_many_unpins_as_pins() -> None:
    cache = filled(1)
    cache.pin("a")
    cache.put("a", entry())
    cache.pin("a")
    cache.unpin("a")
    cache.put("b", entry())
    assert "a" in cache
    cache.unpin("a")
    assert cache.num_pinned == 0


def test_zero_entries_keeps_only_pinned() -> None:
    cache = filled(0, "a")
    assert len(cache) == 0
    cache.pin("b")
    cache.put("b", entry())
    assert "b" in cache
    cache.unpin("b")
    assert len(cache) == 0


def test_putting_again_replaces_and_keeps_pins() -> None:
    cache = filled(1)
    cache.pin("a")
    cache.put("a", entry(1.0))
    newer = entry(2.0)
    cache.put("a", newer)
    assert cache.get("a") is newer
    cache.put("b", entry())
    assert "a" in cache
    cache.unpin("a")
    assert cache.num_pinned == 0


def test_a_pin_may_come_before_the_image() -> None:
    cache = filled(1, "a")
    cache.pin("b")
    cache.put("b", entry())
    cache.put("c", entry())
    assert "b" in cache
    assert cache.num_pinned == 1
    cache.unpin("b")
    assert cache.num_pinned == 0


def on_two_tiers(*keys: str) -> EmbeddingCache:
    cache = EmbeddingCache(1, 2)
    for key in keys:
        cache.put(key, entry(float(ord(key))))
    return cache


def test_what_has_no_room_on_the_device_goes_to_the_host() -> None:
    cache = on_two_tiers("a", "b", "c")
    assert (len(cache), cache.num_on_host) == (1, 2)
    assert all(key in cache for key in "abc")
    cache.put("d", entry())
    assert (len(cache), cache.num_on_host) == (1, 2)
    assert "a" not in cache


def test_what_is_looked_up_comes_back_from_the_host() -> None:
    cache = on_two_tiers("a", "b")
    found = cache.get("a")
    assert found is not None and torch.equal(found.embedding, entry(97.0).embedding)
    assert (cache.hits, cache.host_hits, cache.misses) == (1, 1, 0)
    assert cache.get("a") is found
    assert (cache.hits, cache.host_hits) == (2, 1)
    assert (len(cache), cache.num_on_host) == (1, 1)
    cache.put("c", entry())
    cache.put("d", entry())
    assert "b" not in cache and "a" in cache


def test_pinned_entries_stay_on_the_device() -> None:
    cache = on_two_tiers("a")
    cache.pin("a")
    cache.pin("b")
    cache.put("b", entry())
    assert (len(cache), cache.num_on_host) == (2, 0)
    cache.unpin("a")
    assert (len(cache), cache.num_on_host) == (1, 1)


def test_an_entry_put_anew_is_not_on_the_host_any_more() -> None:
    cache = on_two_tiers("a", "b")
    newer = entry(5.0)
    cache.put("a", newer)
    assert cache.get("a") is newer
    assert (cache.host_hits, cache.num_on_host) == (0, 1)


def test_without_room_on_the_device_the_host_still_has_it() -> None:
    cache = EmbeddingCache(0, 1)
    cache.put("a", entry(3.0))
    for _ in range(2):
        found = cache.get("a")
        assert found is not None and torch.equal(found.embedding, entry(3.0).embedding)
    assert cache.num_on_host == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_embeddings_go_and_come_back_unchanged() -> None:
    cache = EmbeddingCache(1, 8)
    stored = [torch.randn(8, 8, 256, device="cuda").permute(2, 0, 1) for _ in range(8)]
    for number, embedding in enumerate(stored):
        cache.put(str(number), ImageEmbedding(embedding, (8, 8), (8, 8)))
    for number, embedding in enumerate(stored):
        found = cache.get(str(number))
        assert found is not None and found.embedding.device == embedding.device
        assert found.embedding.stride() == embedding.stride()
        assert torch.equal(found.embedding, embedding)
    assert cache.host_hits == 8


def test_wrong_use_is_refused() -> None:
    with pytest.raises(KeyError):
        filled(1, "a").unpin("a")
    with pytest.raises(ValueError, match="negative"):
        EmbeddingCache(-1)
    with pytest.raises(ValueError, match="negative"):
        EmbeddingCache(1, -1)
