"""Addresses and data URLs that must not be fetched, or cannot be."""

from __future__ import annotations

import base64

from tests.robustness.case import (
    CHAT,
    NOT_FETCHED,
    READ,
    READ_OR_REFUSED,
    REFUSED,
    SEGMENT,
    Case,
)
from tests.robustness.corpus.carriers import FINE_FILE, chat_about, dumped, segment_about

DATA = base64.b64encode(FINE_FILE).decode()

HOSTS: dict[str, str] = {
    "loopback": "127.0.0.1",
    "loopback, short": "127.1",
    "loopback, shorter": "127.0.1",
    "all of loopback": "127.255.255.254",
    "nowhere": "0.0.0.0",
    "nowhere, short": "0",
    "decimal": "2130706433",
    "octal": "0177.0.0.1",
    "octal, long": "00000177.0.0.1",
    "hexadecimal": "0x7f000001",
    "hexadecimal parts": "0x7f.0x0.0x0.0x1",
    "mixed": "0x7f.1",
    "too large a number": "4294967297",
    "five numbers": "127.0.0.1.1",
    "localhost": "localhost",
    "LOCALHOST": "LOCALHOST",
    "localhost with a dot": "localhost.",
    "localhost's domain": "localhost.localdomain",
    "localhost below": "a.localhost",
    "link-local": "169.254.169.254",
    "link-local, decimal": "2852039166",
    "metadata by name": "metadata.google.internal",
    "private 10": "10.0.0.1",
    "private 172": "172.16.0.1",
    "private 192": "192.168.1.1",
    "shared": "100.64.0.1",
    "benchmarking": "198.18.0.1",
    "documentation": "192.0.2.1",
    "multicast": "224.0.0.1",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "IPv6 loopback": "[::1]",
    "IPv6 loopback, long": "[0:0:0:0:0:0:0:1]",
    "IPv6 nowhere": "[::]",
    "IPv6 mapped": "[::ffff:127.0.0.1]",
    "IPv6 mapped, hexadecimal": "[::ffff:7f00:1]",
    "IPv6 compatible": "[::127.0.0.1]",
    "IPv6 6to4": "[2002:7f00:1::]",
    "IPv6 NAT64": "[64:ff9b::7f00:1]",
    "IPv6 local NAT64": "[64:ff9b:1::7f00:1]",
    "IPv6 Teredo": "[2001:0:7f00:1::]",
    "IPv6 link-local": "[fe80::1]",
    "IPv6 link-local with a zone": "[fe80::1%25lo]",
    "IPv6 unique local": "[fd00:ec2::254]",
    "IPv6 site-local": "[fec0::1]",
    "IPv6 multicast": "[ff02::1]",
    "IPv6 cut off": "[::1",
    "IPv6 without brackets": "::1",
    "full-width digits": "\uff11\uff12\uff17.0.0.1",
    "circled digits": "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460",
    "ideographic dots": "127\u30020\u30020\u30021",
    "soft hyphen": "local\u00adhost",
    "encoded": "%6c%6f%63alhost",
    "encoded dots": "127%2e0%2e0%2e1",
    "no name": "",
    "a dot": ".",
    "dots": "..",
    "a label of 64": "a" * 64 + ".invalid",
    "a name of 300": ".".join(["a" * 59] * 5),
    "a name that does not exist": "does-not-exist.invalid",
    "an underscore": "a_b.invalid",
    "a hyphen": "-",
    "an asterisk": "*",
    "punycode of nothing": "xn--",
    "punycode of noise": "xn--99999999999",
    "user name": "example.com@127.0.0.1",
    "user name and password": "a:b@127.0.0.1",
    "empty user name": "@127.0.0.1",
    "two at signs": "a@b@127.0.0.1",
    "backslash": "example.com\\@127.0.0.1",
    "two backslashes": "127.0.0.1\\\\example.com",
    "fragment before the host": "example.com#@127.0.0.1",
    "question before the host": "127.0.0.1?@example.com",
    "a tab": "127.0.\t0.1",
    "a line end": "127.0.0.1\r\nX-Injected: 1",
    "a NUL": "127.0.0.1\0.example.com",
    "a space": "127.0.0.1 .example.com",
}

WHOLE: dict[str, str] = {
    "nothing": "",
    "a space": " ",
    "a word": "picture",
    "a path": "/etc/passwd",
    "a path upwards": "../../etc/passwd",
    "file": "file:///etc/passwd",
    "FILE": "FILE:///etc/passwd",
    "file with a host": "file://localhost/etc/passwd",
    "file with one slash": "file:/etc/passwd",
    "file without a slash": "file:etc/passwd",
    "file encoded": "file:///%65tc/passwd",
    "file of a share": "file://\\\\127.0.0.1\\share",
    "ftp": "ftp://127.0.0.1/a.png",
    "gopher": "gopher://127.0.0.1:25/_HELO",
    "dict": "dict://127.0.0.1:11211/stat",
    "ldap": "ldap://127.0.0.1/",
    "jar": "jar:http://127.0.0.1!/a.png",
    "javascript": "javascript:alert(1)",
    "blob": "blob:http://127.0.0.1/a",
    "ws": "ws://127.0.0.1/",
    "s3": "s3://bucket/a.png",
    "hf": "hf://a/b",
    "about": "about:blank",
    "an unknown scheme": "a+b-c.d://127.0.0.1/",
    "http without slashes": "http:127.0.0.1/a.png",
    "http with one slash": "http:/127.0.0.1/a.png",
    "http with three slashes": "http:///127.0.0.1/a.png",
    "no scheme": "//127.0.0.1/a.png",
    "http with backslashes": "http:\\\\127.0.0.1\\a.png",
    "a space before": " http://127.0.0.1/a.png",
    "http alone": "http://",
    "HTTP": "HTTP://127.0.0.1/a.png",
    "a port of letters": "http://127.0.0.1:abc/a.png",
    "port 0": "http://127.0.0.1:0/a.png",
    "port 99999": "http://127.0.0.1:99999/a.png",
    "port -1": "http://127.0.0.1:-1/a.png",
    "a megabyte": "http://127.0.0.1/" + "a" * (1 << 20),
    "unfinished escape": "http://127.0.0.1/%",
    "half a surrogate": "http://127.0.0.1/\ud800",
    "http in http": "http://http://127.0.0.1/",
}

DATA_URLS: dict[str, tuple[str, frozenset[int]]] = {
    "data: alone": ("data:", REFUSED),
    "data: with a comma": ("data:,", REFUSED),
    "data: text": ("data:,hello", REFUSED),
    "data: no kind": (f"data:;base64,{DATA}", READ_OR_REFUSED),
    "data: no base64": (f"data:image/png,{DATA}", REFUSED),
    "data: another encoding": (f"data:image/png;base32,{DATA}", REFUSED),
    "data: no comma": (f"data:image/png;base64{DATA}", REFUSED),
    "data: two commas": (f"data:image/png;base64,,{DATA}", READ_OR_REFUSED),
    "data: DATA": (f"DATA:image/png;base64,{DATA}", READ_OR_REFUSED),
    "data: BASE64": (f"data:image/png;BASE64,{DATA}", READ_OR_REFUSED),
    "data: a space after the comma": (f"data:image/png;base64, {DATA}", READ_OR_REFUSED),
    "data: spaces": ("data:image/png;base64," + " ".join(DATA), READ_OR_REFUSED),
    "data: line ends": ("data:image/png;base64," + "\r\n".join(DATA), READ_OR_REFUSED),
    "data: encoded signs": (
        "data:image/png;base64," + DATA.replace("+", "%2B").replace("/", "%2F"),
        READ_OR_REFUSED,
    ),
    "data: the URL-safe alphabet": (
        "data:image/png;base64," + DATA.replace("+", "-").replace("/", "_"),
        READ_OR_REFUSED,
    ),
    "data: one letter": ("data:image/png;base64,A", REFUSED),
    "data: no padding": ("data:image/png;base64," + DATA.rstrip("="), READ_OR_REFUSED),
    "data: only padding": ("data:image/png;base64,====", REFUSED),
    "data: padding amid": (f"data:image/png;base64,{DATA[:40]}=={DATA[40:]}", READ_OR_REFUSED),
    "data: signs that are none": ("data:image/png;base64,%%%%", REFUSED),
    "data: letters beyond ASCII": ("data:image/png;base64,\u00e4\u00f6\u00fc\u00df", REFUSED),
    "data: a NUL": (f"data:image/png;base64,\0{DATA}", READ_OR_REFUSED),
    "data: a text's kind": (f"data:text/html;base64,{DATA}", READ_OR_REFUSED),
    "data: a video's kind": (f"data:video/jpeg;base64,{DATA}", READ_OR_REFUSED),
    "data: a sound's kind": (f"data:audio/wav;base64,{DATA}", READ_OR_REFUSED),
    "data: a kind of 100000 letters": (
        f"data:image/{'a' * 100_000};base64,{DATA}",
        READ_OR_REFUSED,
    ),
    "data: 10000 parameters": (
        f"data:image/png;{'a=b;' * 10_000}base64,{DATA}",
        READ_OR_REFUSED,
    ),
    "data: as it should be": (f"data:image/png;base64,{DATA}", READ),
}


def _both(name: str, url: str, statuses: frozenset[int]) -> list[Case]:
    return [
        Case(f"chat: {name}", dumped(chat_about(url)), CHAT, statuses),
        Case(f"call: {name}", dumped(segment_about(url)), SEGMENT, statuses),
    ]


def cases() -> dict[str, list[Case]]:
    """Each address in a chat and in a call."""
    hosts = [
        case
        for name, host in HOSTS.items()
        for case in _both(name, f"http://{host}/a.png", NOT_FETCHED)
    ]
    whole = [case for name, url in WHOLE.items() for case in _both(name, url, NOT_FETCHED)]
    data = [
        case for name, (url, statuses) in DATA_URLS.items() for case in _both(name, url, statuses)
    ]
    return {"hosts": hosts, "addresses": whole, "data URLs": data}
