"""Writes the dashboard: `python -m vllm_csp.serving.dashboard.build > .../vllm_csp.json`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

WIDTH = 24
HEIGHT = 8
SOURCE = {"type": "prometheus", "uid": "${source}"}
RATE = "[$__rate_interval]"


@dataclass(frozen=True)
class Panel:
    """One picture: PromQL by legend. unit is Grafana's name of it; wide: half or all of a row."""

    title: str
    what: str
    queries: dict[str, str]
    unit: str = "short"
    wide: int = WIDTH // 3


def _rate(metric: str, by: str = "") -> str:
    grouped = f"sum by ({by})" if by else "sum"
    return f"{grouped} (rate({metric}{{{SELECTED}}}{RATE}))"


def _sum(metric: str) -> str:
    return f"sum ({metric}{{{SELECTED}}})"


def _quantile(share: float, metric: str) -> str:
    buckets = f"sum by (le) (rate({metric}_bucket{{{SELECTED}}}{RATE}))"
    return f"histogram_quantile({share}, {buckets})"


def _quantiles(metric: str) -> dict[str, str]:
    return {f"p{share * 100:.0f}": _quantile(share, metric) for share in (0.5, 0.9, 0.99)}


SELECTED = 'job=~"$job", instance=~"$instance"'

ROWS: dict[str, list[Panel]] = {
    "Does it work": [
        Panel(
            "Ready",
            "1 while masks are made. Written when GET /ready is asked, and at an end or death.",
            {"{{instance}}": f"min by (instance) (vllm_csp:ready{{{SELECTED}}})"},
        ),
        Panel(
            "Probes",
            "Masks made to see that it works; only while nobody else asks for any.",
            {"{{outcome}}": _rate("vllm_csp:probes_total", "outcome")},
            "ops",
        ),
        Panel(
            "Refused",
            "Requests not let in, or ended by the server, by reason.",
            {"{{reason}}": _rate("vllm_csp:requests_refused_total", "reason")},
            "ops",
        ),
    ],
    "What is asked": [
        Panel(
            "Requests",
            "By status class, of all routes.",
            {"{{status}}": _rate("http_requests_total", "status")},
            "reqps",
        ),
        Panel("Masks", "Masks returned.", {"masks": _rate("vllm_csp:masks_total")}, "ops"),
        Panel(
            "In the making",
            "Answers that clients wait for, and where the engine has them.",
            {
                "held": _sum("vllm_csp:held_requests"),
                "running": _sum("vllm:num_requests_running"),
                "waiting": _sum("vllm:num_requests_waiting"),
            },
        ),
    ],
    "How long it takes": [
        Panel(
            "Whole request",
            "From its arrival at the engine to its last token.",
            _quantiles("vllm:e2e_request_latency_seconds"),
            "s",
        ),
        Panel(
            "Time to first token",
            "Queue, encoding and prefill; with mode `force` all but the mask.",
            _quantiles("vllm:time_to_first_token_seconds"),
            "s",
        ),
        Panel(
            "Mask decoding call",
            "One call decodes the masks of all answers that have ended meanwhile.",
            _quantiles("vllm_csp:mask_decode_seconds"),
            "s",
        ),
        Panel(
            "Queue",
            "From arrival to the first step.",
            _quantiles("vllm:request_queue_time_seconds"),
            "s",
        ),
        Panel(
            "Answers per mask call",
            "Half of the calls decode at most as many.",
            {"p50": _quantile(0.5, "vllm_csp:mask_decode_batch_size")},
        ),
        Panel(
            "SAM's encoder",
            "Share of the time that a worker spends in it.",
            {"busy": _rate("vllm_csp:sam_encode_seconds_total")},
            "percentunit",
        ),
    ],
    "What is kept": [
        Panel(
            "Image embeddings",
            "Held on the device, in the host's memory, and those that a running request needs.",
            {
                "held": _sum("vllm_csp:held_embeddings"),
                "on the host": _sum("vllm_csp:host_embeddings"),
                "pinned": _sum("vllm_csp:pinned_embeddings"),
            },
        ),
        Panel(
            "Embedding cache",
            "Share of look-ups that found the image encoded, and that found it on the host.",
            {
                "hits": f"{_rate('vllm_csp:sam_cache_hits_total')} / "
                f"{_rate('vllm_csp:sam_cache_queries_total')}",
                "from the host": f"{_rate('vllm_csp:sam_cache_host_hits_total')} / "
                f"{_rate('vllm_csp:sam_cache_queries_total')}",
            },
            "percentunit",
        ),
        Panel(
            "Held queries",
            "Sequences whose mask queries are held; back to 0 when nobody asks.",
            {"streams": _sum("vllm_csp:held_streams")},
        ),
        Panel(
            "KV cache",
            "Share in use.",
            {"{{instance}}": f"max by (instance) (vllm:kv_cache_usage_perc{{{SELECTED}}})"},
            "percentunit",
        ),
        Panel(
            "Image tokens per stage",
            "That a stage kept, per second; and images that were rows of a request beside.",
            {
                "stage {{stage}}": _rate("vllm_csp:visual_tokens_total", "stage"),
                "shared images": _rate("vllm_csp:shared_images_total"),
            },
            "ops",
        ),
        Panel(
            "Kept image tokens",
            "Image-token layers over those of policy `dense`.",
            {"kept": f"avg (vllm_csp:visual_tokens_kept_ratio{{{SELECTED}}})"},
            "percentunit",
        ),
    ],
}


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        place = {"h": 1, "w": WIDTH, "x": 0, "y": y}
        panels.append({"type": "row", "title": title, "gridPos": place, "panels": []})
        y, x = y + 1, 0
        for panel in row:
            if x + panel.wide > WIDTH:
                x, y = 0, y + HEIGHT
            panels.append(_panel(panel, {"h": HEIGHT, "w": panel.wide, "x": x, "y": y}))
            x += panel.wide
        y += HEIGHT
    for number, one in enumerate(panels, 1):
        one["id"] = number
    return {
        "uid": "vllm-csp",
        "title": "vllm-csp",
        "tags": ["vllm", "segmentation"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": panels,
    }


def _panel(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.what,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"showLegend": True, "placement": "bottom"}},
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": SOURCE,
                "expr": query,
                "legendFormat": legend,
            }
            for number, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def _variables() -> list[dict[str, Any]]:
    variables: list[dict[str, Any]] = [
        {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    ]
    chosen = {"job": "vllm_csp:ready", "instance": 'vllm_csp:ready{job=~"$job"}'}
    for name, metric in chosen.items():
        variables.append(
            {
                "name": name,
                "type": "query",
                "datasource": SOURCE,
                "query": f"label_values({metric}, {name})",
                "refresh": 2,
                "includeAll": True,
                "multi": True,
                "current": {"text": "All", "value": "$__all"},
            }
        )
    return variables


if __name__ == "__main__":
    json.dump(dashboard(), sys.stdout, indent=1)
    sys.stdout.write("\n")
