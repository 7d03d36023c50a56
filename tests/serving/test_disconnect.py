"""A client that goes away leaves nothing behind."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.metrics import summed
from benchmarks.overlap import iou
from tests.chat import body, question_body, user
from tests.oracle import recording
from tests.pictures import data_url, encoded, gradient
from tests.server import Server, wait_until

SECONDS = 60
# Sure | , | it | is | [SEG]
WORDS = [18585, 29892, 372, 338, 32003]


def idle(server: Server) -> bool:
    held = server.held()
    return server.running() == held["streams"] == held["pinned"] == 0


def long_request(picture: str, **fields: Any) -> dict[str, Any]:
    """Hundreds of tokens, many [SEG]s."""
    return body(
        user("Please segment everything.", picture),
        allowed_token_ids=WORDS,
        ignore_eos=True,
        max_tokens=600,
        **fields,
    )


class Caller:
    """A client that speaks HTTP by hand, to go away at any byte."""

    def __init__(
        self, server: Server, request: dict[str, Any], path: str = "/v1/chat/completions"
    ) -> None:
        content = json.dumps(request).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {server.key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        host, port = server.url.removeprefix("http://").split(":")
        self._connection = socket.create_connection((host, int(port)), timeout=SECONDS)
        self._message = head.encode() + content

    def send(self, share: float = 1.0) -> None:
        """Send the request, or a part of it."""
        self._connection.sendall(self._message[: int(share * len(self._message))])

    def read_until(self, text: bytes) -> None:
        """Read the answer up to some text."""
        seen = b""
        while text not in seen:
            part = self._connection.recv(4096)
            assert part, seen
            seen += part

    def hang_up(self) -> None:
        self._connection.close()


@pytest.fixture
def new_picture() -> str:
    """A picture that the server has not seen: its SAM embedding is part of the work."""
    size = 100 + time.monotonic_ns() % 400
    return data_url(encoded(gradient(size, 211)))


def unanswered(caller: Caller, server: Server) -> None:
    caller.send()


def while_decoding(caller: Caller, server: Server) -> None:
    caller.send()
    wait_until(lambda: server.held()["streams"] > 0, SECONDS, "tokens are recorded")


def half_sent(caller: Caller, server: Server) -> None:
    caller.send(share=0.5)


def after_the_first_token(caller: Caller, server: Server) -> None:
    caller.send()
    caller.read_until(b"Sure")


def after_the_headers(caller: Caller, server: Server) -> None:
    caller.send()
    caller.read_until(b"\r\n\r\n")


Moment = Callable[[Caller, Server], None]
ANY: list[Moment] = [half_sent, unanswered, while_decoding]
STREAMED: list[Moment] = [after_the_headers, after_the_first_token]


def leaves_nothing(server: Server, request: dict[str, Any], moment: Moment) -> None:
    wait_until(lambda: idle(server), SECONDS, "earlier requests have gone")
    caller = Caller(server, request)
    moment(caller, server)
    caller.hang_up()
    wait_until(lambda: idle(server), SECONDS, "nothing runs and nothing is held")


@pytest.mark.parametrize("moment", ANY)
@pytest.mark.parametrize("choices", [1, 3])
def test_a_whole_answer_given_up(
    server: Server, new_picture: str, moment: Moment, choices: int
) -> None:
    request = long_request(new_picture, n=choices)
    leaves_nothing(server, {**request, "temperature": 1.0}, moment)


@pytest.mark.parametrize("moment", ANY + STREAMED)
def test_a_stream_given_up(server: Server, new_picture: str, moment: Moment) -> None:
    leaves_nothing(server, long_request(new_picture, stream=True), moment)


def test_the_engine_stops_working_for_who_has_gone(server: Server, new_picture: str) -> None:
    """Fewer tokens than the answer would have had."""
    before = generated_tokens(server)
    leaves_nothing(server, long_request(new_picture, stream=True), after_the_first_token)
    assert generated_tokens(server) - before < 500


def test_the_picture_of_who_has_gone_is_answered_to_others(
    server: Server, new_picture: str
) -> None:
    for moment in (unanswered, while_decoding):
        leaves_nothing(server, long_request(new_picture), moment)
        reply = server.chat(body(user("What?", new_picture), segmentation={"mode": "force"}))
        assert reply.status_code == 200, reply.text
        assert len(reply.json()["choices"][0]["message"]["masks"]) == 1


def test_others_in_the_batch_are_answered(server: Server, new_picture: str) -> None:
    one = recording("d04-answer")
    callers = [Caller(server, long_request(new_picture, stream=True)) for _ in range(4)]
    for caller in callers:
        caller.send()
    for caller in callers:
        caller.read_until(b"Sure")
        caller.hang_up()
    reply = server.chat(question_body(one))
    masks = reply.json()["choices"][0]["message"]["masks"]
    for mask, reference in zip(masks, one.masks("fp32"), strict=True):
        assert iou(mask, reference) >= 0.999
    wait_until(lambda: idle(server), SECONDS, "nothing runs and nothing is held")


def generated_tokens(server: Server) -> float:
    [count] = summed(server.metrics(), ["vllm:generation_tokens_total"]).values()
    return count
