"""What a client can make the server fetch, tried against a real server on loopback."""

from __future__ import annotations

import asyncio
import base64
import os
from pathlib import Path

import pytest
from PIL import Image
from vllm.exceptions import VLLMClientError, VLLMUnprocessableEntityError, VLLMValidationError
from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY

from tests.media.conftest import Host, png
from vllm_csp.media.connector import PublicMediaConnector
from vllm_csp.plugin import MEDIA_CONNECTOR, register


def fetch(url: str, *trusted: str) -> Image.Image:
    """Fetch as the server does; `trusted` are its --allowed-media-domains."""
    connector = PublicMediaConnector(allowed_media_domains=list(trusted))

    async def load() -> Image.Image:
        return await connector.fetch_image_async(url)

    fetched = asyncio.run(load())
    image = getattr(fetched, "media", fetched)
    assert isinstance(image, Image.Image)
    return image


def test_the_plugin_registers_the_connector() -> None:
    register()
    connector = MEDIA_CONNECTOR_REGISTRY.load(MEDIA_CONNECTOR)
    assert isinstance(connector, PublicMediaConnector)


def test_a_host_that_the_operator_named_is_fetched_from(host: Host) -> None:
    assert fetch(host.url("image.png"), "127.0.0.1").size == (8, 6)
    assert fetch(host.url("image.png", "localhost"), "localhost").size == (8, 6)


# Ways to write loopback and the metadata service, and tricks to hide them.
REFUSED = [
    "http://127.0.0.1:{port}/image.png",
    "http://localhost:{port}/image.png",
    "http://localhost.:{port}/image.png",
    "http://LOCALHOST:{port}/image.png",
    "http://127.1:{port}/image.png",
    "http://2130706433:{port}/image.png",
    "http://0x7f000001:{port}/image.png",
    "http://0177.0.0.1:{port}/image.png",
    "http://0.0.0.0:{port}/image.png",
    "http://[::1]:{port}/image.png",
    "http://[::]:{port}/image.png",
    "http://[::ffff:127.0.0.1]:{port}/image.png",
    "http://[::ffff:7f00:1]:{port}/image.png",
    "http://[64:ff9b::7f00:1]:{port}/image.png",
    "http://[fe80::1%25lo]:{port}/image.png",
    "http://①②⑦.⓪.⓪.①:{port}/image.png",
    "http://user@127.0.0.1:{port}/image.png",
    "http://example.com@127.0.0.1:{port}/image.png",
    "http://127.0.0.1:{port}\\@example.com/image.png",
    "http://example.com\\@127.0.0.1:{port}/image.png",
    "http:\\\\127.0.0.1:{port}/image.png",
    "http://127.0.0.1:{port}/\timage.png",
    "http://169.254.169.254/latest/meta-data/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://10.0.0.1/image.png",
    "http://192.168.0.1/image.png",
    "http://127.0.0.1:99999/image.png",
    "http:///image.png",
    "http://",
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "FILE:///etc/passwd",
    "ftp://127.0.0.1/image.png",
    "gopher://127.0.0.1:{port}/_GET",
    "javascript:alert(1)",
    "data:image/png,notbase64",
    "data:image/png;base64",
    "data:text/html;base64,PGI+",
    "",
    "image.png",
]


@pytest.mark.parametrize("address", REFUSED)
def test_refused(host: Host, address: str) -> None:
    host.asked.clear()
    with pytest.raises(VLLMClientError):
        fetch(address.format(port=host.port))
    assert host.asked == []


def test_a_name_that_resolves_to_loopback_is_refused(host: Host) -> None:
    # `localhost` is such a name; the message says what it resolved to, not that it is unreachable.
    with pytest.raises(VLLMValidationError, match="no address on the public internet"):
        fetch(host.url("image.png", "localhost"))


def test_redirects_are_not_followed(host: Host) -> None:
    host.asked.clear()
    with pytest.raises(VLLMValidationError, match="redirects are not followed"):
        fetch(host.url(f"redirect?to={host.url('image.png')}"), "127.0.0.1")
    assert host.asked == ["/redirect"]


def test_every_hop_is_checked_where_redirects_are_allowed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_MEDIA_URL_ALLOW_REDIRECTS", "1")
    allowed = host.url(f"redirect?to={host.url('image.png')}")
    assert fetch(allowed, "127.0.0.1").size == (8, 6)
    host.asked.clear()
    # Only the first host is trusted; the second is the same machine by another name.
    with pytest.raises(VLLMValidationError, match="none of --allowed-media-domains"):
        fetch(host.url(f"redirect?to={host.url('image.png', '127.0.0.2')}"), "127.0.0.1")
    with pytest.raises(VLLMValidationError, match="no http or https address"):
        fetch(host.url("redirect?to=file:///etc/passwd"), "127.0.0.1")
    assert host.asked == ["/redirect", "/redirect"]


@pytest.mark.parametrize("target", ["http://93.184.215.14/a.png", "https://example.com/a.png"])
def test_with_named_hosts_no_public_one_is_fetched_from(
    host: Host, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setenv("VLLM_MEDIA_URL_ALLOW_REDIRECTS", "1")
    host.asked.clear()
    with pytest.raises(VLLMClientError):
        fetch(target, "127.0.0.1")
    assert host.asked == []
    with pytest.raises(VLLMValidationError, match="none of --allowed-media-domains"):
        fetch(host.url(f"redirect?to={target}"), "127.0.0.1")
    assert host.asked == ["/redirect"]


def test_named_hosts_are_compared_without_case(host: Host) -> None:
    assert fetch(host.url("image.png", "localhost"), "localhost", "LocalHost").size == (8, 6)


def test_downloads_are_bounded(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(VLLMUnprocessableEntityError, match="larger than"):
        fetch(host.url("large.png"), "127.0.0.1")
    monkeypatch.setenv("VLLM_IMAGE_FETCH_TIMEOUT", "1")
    with pytest.raises(VLLMUnprocessableEntityError, match="no answer within"):
        fetch(host.url("slow.png"), "127.0.0.1")


def test_failures_are_told(host: Host) -> None:
    with pytest.raises(VLLMUnprocessableEntityError, match="answered 404"):
        fetch(host.url("nothing.png"), "127.0.0.1")
    with pytest.raises(VLLMUnprocessableEntityError, match="cannot be reached"):
        fetch("http://127.0.0.1:9/image.png", "127.0.0.1")


def test_data_urls_need_no_network() -> None:
    data = base64.b64encode(png()).decode()
    assert fetch(f"data:image/png;base64,{data}").size == (8, 6)


def test_local_files_are_off_unless_a_folder_is_opened(tmp_path: Path) -> None:
    file = tmp_path / "image.png"
    file.write_bytes(png())
    with pytest.raises(VLLMValidationError, match="allowed-local-media-path"):
        fetch(file.as_uri())
    opened = PublicMediaConnector(allowed_local_media_path=str(tmp_path))

    async def load(url: str) -> object:
        return await opened.fetch_image_async(url)

    assert asyncio.run(load(file.as_uri())) is not None
    with pytest.raises(VLLMValidationError):
        asyncio.run(load("file:///etc/hostname"))


def test_callers_without_a_loop_are_served(host: Host) -> None:
    connector = PublicMediaConnector(allowed_media_domains=["127.0.0.1"])
    fetched = connector.fetch_image(host.url("image.png"))
    assert getattr(fetched, "media", fetched).size == (8, 6)
    with pytest.raises(VLLMClientError):
        PublicMediaConnector().fetch_image(host.url("image.png"))


def test_the_operators_choice_of_a_connector_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm_csp.media.connector import choose_connector

    monkeypatch.setenv("VLLM_MEDIA_CONNECTOR", "http")
    choose_connector()
    assert os.environ["VLLM_MEDIA_CONNECTOR"] == "http"
    monkeypatch.delenv("VLLM_MEDIA_CONNECTOR")
    choose_connector()
    assert os.environ["VLLM_MEDIA_CONNECTOR"] == MEDIA_CONNECTOR
