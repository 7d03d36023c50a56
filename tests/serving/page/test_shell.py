"""The page's files are for everyone, and nothing else is."""

from __future__ import annotations

import re
from importlib.resources import files

import httpx
import pytest

from tests.server import Server

PATH = "/v1/segment/ui"
NAMES = sorted(file.name for file in (files("vllm_csp.serving.page") / "static").iterdir())


def get(server: Server, path: str, method: str = "GET") -> httpx.Response:
    return httpx.request(method, server.url + path, timeout=60)


@pytest.mark.parametrize("name", NAMES)
def test_its_files_need_no_key_and_allow_nothing_from_elsewhere(server: Server, name: str) -> None:
    path = PATH if name == "index.html" else f"{PATH}/{name}"
    reply = get(server, path)
    assert reply.status_code == 200
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"
    kind = {"html": "text/html", "css": "text/css", "js": "text/javascript"}[name.split(".")[1]]
    assert reply.headers["content-type"] == f"{kind}; charset=utf-8"
    # Names of XML's own that browsers know are no requests.
    assert not re.search(r"https?://|//[a-z]+\.", reply.text)
    head = get(server, path, "HEAD")
    assert (head.status_code, head.content) == (200, b"")


def test_with_a_slash_it_is_found_too(server: Server) -> None:
    reply = httpx.get(f"{server.url}{PATH}/", follow_redirects=True, timeout=60)
    assert (reply.status_code, reply.url.path) == (200, PATH)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", PATH),
        ("POST", "/v1/segment"),
        ("GET", "/v1/models"),
        ("GET", f"{PATH}x"),
        ("GET", f"{PATH}/index.html"),
        ("GET", f"{PATH}/nothing.js"),
        ("GET", f"{PATH}/../segment"),
        ("GET", f"{PATH}/../../models"),
        ("GET", f"{PATH}/%2e%2e/%2e%2e/models"),
        ("GET", f"{PATH}/page.js/../../../models"),
        ("GET", f"/{PATH}/page.js/..%2f..%2fmodels"),
    ],
)
def test_around_it_the_key_is_needed(server: Server, method: str, path: str) -> None:
    """Also for paths that a client does not clean."""
    host = server.url.removeprefix("http://")
    with httpx.Client(base_url=server.url, timeout=60) as client:
        request = client.build_request(method, "/")
        request.url = request.url.copy_with(raw_path=path.encode())
        assert request.headers["host"] == host
        assert client.send(request).status_code in (401, 404)


def test_no_path_beside_the_files_is_answered_without_the_key(server: Server) -> None:
    """Statuses of the paths under /v1 above are 401, never 404: nothing is told."""
    assert get(server, f"{PATH}/nothing.js").status_code == 401
