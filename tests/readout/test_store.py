"""The store of mask queries: which rows it gives back, and when it lets go."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import pytest
import torch

from tests.readout.lookup import queries
from vllm_csp.readout.store import ReadoutStore, Stream

DIM = 4


class Pins(Counter[str]):
    """Counts the holds on each image, as the embedding cache does."""

    def take(self, key: str) -> None:
        self[key] += 1

    def give(self, key: str) -> None:
        assert self[key] > 0
        self[key] -= 1


@pytest.fixture
def pins() -> Pins:
    return Pins()


@pytest.fixture
def store(pins: Pins) -> ReadoutStore:
    return ReadoutStore(pins.take, pins.give, max_streams=4, max_age=60.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time, to be set by the test."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    yield now


def query(value: float) -> torch.Tensor:
    return torch.full((DIM,), value)


def step(store: ReadoutStore, rows: dict[float, tuple[Stream, int]]) -> None:
    """One engine step: query value -> (stream, token it was fed)."""
    store.record(
        [stream for stream, _ in rows.values()],
        torch.stack([query(value) for value in rows]),
        [fed for _, fed in rows.values()],
    )


def test_a_query_belongs_to_the_row_that_predicted_the_token(store: ReadoutStore) -> None:
    stream = store.open("request", "image")
    for value, fed in ((10.0, 7), (11.0, 100), (12.0, 101)):
        step(store, {value: (stream, fed)})
    found = queries(store, "request", [100, 101, 102], [0, 2])
    assert found is not None
    assert torch.equal(found, torch.stack([query(10.0), query(12.0)]))


def test_streams_of_one_step_are_kept_apart(store: ReadoutStore) -> None:
    one, two = store.open("one", "image"), store.open("two", "image")
    step(store, {1.0: (one, 5), 2.0: (two, 5)})
    step(store, {3.0: (two, 50), 4.0: (one, 51)})
    found_one = queries(store, "one", [51, 52], [0, 1])
    found_two = queries(store, "two", [50, 53], [0, 1])
    assert found_one is not None and found_two is not None
    assert found_one[:, 0].tolist() == [1.0, 4.0]
    assert found_two[:, 0].tolist() == [2.0, 3.0]


def test_choices_of_one_request_are_told_apart_by_their_tokens(store: ReadoutStore) -> None:
    """n = 3: the API process knows tokens, not which stream is which."""
    streams = [store.open("request", "image") for _ in range(3)]
    tokens = [[20, 30, 40], [20, 31, 40], [21, 30, 40]]
    for position in range(3):
        rows = {
            float(10 * number + position): (
                stream,
                7 if position == 0 else tokens[number][position - 1],
            )
            for number, stream in enumerate(streams)
        }
        step(store, rows)
    for number, chosen in enumerate(tokens):
        found = queries(store, "request", chosen, [2])
        assert found is not None
        assert found[0, 0] == 10 * number + 2


def test_tokens_told_apart_may_be_on_the_device(store: ReadoutStore) -> None:
    """Runner V2 hands over the fed tokens as a tensor."""
    streams = [store.open("request", "image") for _ in range(2)]
    store.record(streams, torch.stack([query(1.0), query(2.0)]), torch.tensor([7, 7]))
    store.record(streams, torch.stack([query(3.0), query(4.0)]), torch.tensor([20, 21]))
    found = queries(store, "request", [21, 5], [1])
    assert found is not None
    assert found[0, 0] == 4.0


def test_an_unfinished_or_unknown_request_has_no_queries(store: ReadoutStore) -> None:
    stream = store.open("request", "image")
    step(store, {1.0: (stream, 7)})
    assert queries(store, "request", [100, 101], [1]) is None
    assert queries(store, "another", [100], [0]) is None


def test_no_stream_with_other_tokens_is_taken_instead(store: ReadoutStore) -> None:
    for value in (1.0, 2.0):
        stream = store.open("request", "image")
        step(store, {value: (stream, 7)})
        step(store, {value + 10: (stream, 20)})
    assert queries(store, "request", [99, 100], [1]) is None


def test_a_preempted_request_goes_on_where_it_was(store: ReadoutStore, pins: Pins) -> None:
    stream = store.open("request", "image")
    step(store, {1.0: (stream, 7)})
    step(store, {2.0: (stream, 100)})
    resumed = store.open("request", "image", num_output_tokens=2)
    assert resumed is stream
    step(store, {3.0: (resumed, 101)})
    found = queries(store, "request", [100, 101, 102], [0, 1, 2])
    assert found is not None
    assert found[:, 0].tolist() == [1.0, 2.0, 3.0]
    assert (len(store), pins["image"]) == (1, 1)


def test_a_known_owner_gets_its_own_stream_back(store: ReadoutStore, pins: Pins) -> None:
    owners = [object(), object()]
    streams = [store.open("request", "image", owner=owner) for owner in owners]
    assert streams[0] is not streams[1]
    assert [store.open("request", "image", 0, owner) for owner in owners] == streams
    assert [store.open("request", "image", 5, owner) for owner in owners] == streams
    assert (len(store), pins["image"]) == (2, 2)


def test_choices_that_come_back_together_have_a_stream_each(store: ReadoutStore) -> None:
    streams = [store.open("request", "image", owner=object()) for _ in range(2)]
    step(store, {1.0: (streams[0], 7), 2.0: (streams[1], 7)})
    step(store, {3.0: (streams[0], 20), 4.0: (streams[1], 21)})
    # As behind a pickle, which makes another object of the owner.
    assert [store.open("request", "image", 2, owner=object()) for _ in range(2)] == streams
    step(store, {5.0: (streams[0], 30), 6.0: (streams[1], 31)})
    assert store.open("request", "image", 3, owner=object()) is streams[0], "preempted again"


def test_a_sequence_that_leaves_again_before_it_has_a_row_keeps_its_stream(
    store: ReadoutStore,
) -> None:
    stream = store.open("request", "image", owner=object())
    step(store, {1.0: (stream, 7)})
    for _ in range(3):
        assert store.open("request", "image", 1, owner=object()) is stream


def test_a_sequence_alone_may_have_a_row_that_was_taken_back(store: ReadoutStore) -> None:
    stream = store.open("request", "image", owner=object())
    step(store, {1.0: (stream, 7)})
    step(store, {2.0: (stream, 20)})
    assert store.open("request", "image", 1, owner=object()) is stream


def test_rows_that_are_gone_are_not_replaced_by_later_ones(store: ReadoutStore, pins: Pins) -> None:
    assert store.open("request", "image", 3, owner=object()) is None
    stream = store.open("request", "image", owner=object())
    step(store, {1.0: (stream, 7)})
    assert store.open("request", "image", 2, owner=object()) is None
    assert (len(store), pins["image"]) == (1, 1)


def test_an_engine_that_has_another_choice_has_no_queries(store: ReadoutStore) -> None:
    """Choices of a request may run on several engines; each holds one stream of its key."""
    stream = store.open("request", "image")
    step(store, {1.0: (stream, 7)})
    step(store, {2.0: (stream, 20)})
    assert store.find("request", [20, 5], 1, of_several=True) is stream
    assert store.find("request", [21, 5], 1, of_several=True) is None


def test_release_forgets_every_choice_and_lets_the_image_go(
    store: ReadoutStore, pins: Pins
) -> None:
    streams = [store.open("request", "image") for _ in range(3)]
    other = store.open("other", "image")
    step(store, {float(number): (one, 7) for number, one in enumerate([*streams, other])})
    assert (len(store), pins["image"]) == (4, 4)
    store.release("request")
    assert (len(store), pins["image"]) == (1, 1)
    assert queries(store, "request", [100], [0]) is None
    assert queries(store, "other", [100], [0]) is not None


def test_release_of_an_unknown_or_released_request_does_nothing(
    store: ReadoutStore, pins: Pins
) -> None:
    store.open("request", "image")
    for key in ("another", "request", "request"):
        store.release(key)
    assert (len(store), pins["image"]) == (0, 0)


def test_a_row_after_release_revives_nothing(store: ReadoutStore, pins: Pins) -> None:
    """An abort may reach the worker while the request's last step runs."""
    stream = store.open("request", "image")
    store.release("request")
    step(store, {1.0: (stream, 7)})
    assert (len(store), pins["image"]) == (0, 0)
    assert queries(store, "request", [100], [0]) is None


def test_what_nobody_fetches_expires(store: ReadoutStore, pins: Pins, clock: list[float]) -> None:
    forgotten = store.open("forgotten", "image")
    step(store, {1.0: (forgotten, 7)})
    clock[0] += 59.0
    active = store.open("active", "image")
    clock[0] += 2.0
    store.open("new", "image")
    assert queries(store, "forgotten", [100], [0]) is None
    step(store, {2.0: (active, 7)})
    assert queries(store, "active", [100], [0]) is not None
    assert (len(store), pins["image"]) == (2, 2)


def test_a_long_answer_does_not_expire(store: ReadoutStore, clock: list[float]) -> None:
    stream = store.open("long", "image")
    for number in range(10):
        step(store, {float(number): (stream, number)})
        clock[0] += 50.0
        store.open(f"other {number % 2}", "image")
        store.release(f"other {number % 2}")
    found = queries(store, "long", list(range(1, 11)), [0, 9])
    assert found is not None
    assert found[:, 0].tolist() == [0.0, 9.0]


def test_a_choice_that_has_ended_waits_for_the_others(
    store: ReadoutStore, pins: Pins, clock: list[float]
) -> None:
    short, long = (store.open("request", "image", owner=object()) for _ in range(2))
    step(store, {0.0: (short, 7), 1.0: (long, 7)})
    for number in range(2, 6):
        clock[0] += 50.0
        step(store, {float(number): (long, number)})
        store.open("other", "image")
        store.release("other")
    assert queries(store, "request", [100], [0]) is not None
    clock[0] += 61.0
    store.open("new", "image")
    assert (len(store), pins["image"]) == (1, 1)


def test_the_number_of_streams_is_bounded(store: ReadoutStore, pins: Pins) -> None:
    streams = [store.open(f"request {number}", f"image {number}") for number in range(4)]
    step(store, {0.0: (streams[0], 7)})  # now the youngest
    store.open("one too many", "image")
    assert len(store) == 4
    assert queries(store, "request 0", [100], [0]) is not None
    assert [pins[f"image {number}"] for number in range(4)] == [1, 0, 1, 1]
