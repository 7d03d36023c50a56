"""The dashboard asks for metrics that a server has."""

from __future__ import annotations

import json
import re
from importlib.resources import files

from benchmarks.metrics import samples
from tests.serving.guard.real import Real, picture
from vllm_csp.serving.dashboard.build import dashboard

FILE = files("vllm_csp.serving.dashboard") / "vllm_csp.json"
_METRIC = re.compile(r"\b(?:vllm|vllm_csp|http):?[a-z0-9_:]+(?=[{,)\[]|$)")


def queries() -> list[str]:
    found = [
        target["expr"]
        for panel in json.loads(FILE.read_text())["panels"]
        for target in panel.get("targets", ())
    ]
    variables = json.loads(FILE.read_text())["templating"]["list"]
    return found + [one["query"] for one in variables if one["type"] == "query"]


def metrics() -> set[str]:
    named = {name for query in queries() for name in _METRIC.findall(query)}
    assert all(_METRIC.search(query) for query in queries())
    return named


def labels() -> set[tuple[str, str]]:
    """Metrics and the labels that they are grouped by, beside those that Prometheus adds."""
    grouped = re.compile(r"by \((\w+)\) \(rate\(([a-z0-9_:]+)\{")
    found = {(name, label) for query in queries() for label, name in grouped.findall(query)}
    return {(name, label) for name, label in found if label not in ("instance", "job")}


def test_the_file_is_what_build_writes() -> None:
    assert json.loads(FILE.read_text()) == dashboard()


def test_panels_do_not_overlap() -> None:
    places = [one["gridPos"] for one in dashboard()["panels"]]
    cells = [
        (x, y)
        for one in places
        for x in range(one["x"], one["x"] + one["w"])
        for y in range(one["y"], one["y"] + one["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23


def test_every_metric_is_there(real: Real) -> None:
    assert real.segment("What?", picture=picture()).status_code == 200
    found = list(samples(real.page("/metrics").text))
    names = {one.name for one in found}
    assert metrics() <= names
    # Of this package none is missing in the dashboard either.
    own = {name for name in names if name.startswith("vllm_csp:")}
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in metrics()}
    assert {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in own} <= (
        shown | {re.sub(r"_total$", "", name) for name in shown}
    )
    for name, label in labels():
        of_it = [one.labels for one in found if one.name == name]
        assert of_it and all(label in one for one in of_it), (name, label)
