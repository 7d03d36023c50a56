"""Policies that a request may not choose, and settings that a server does not start with."""

from __future__ import annotations

from typing import Any

from tests.robustness.case import CHAT, SEGMENT, Case
from tests.robustness.corpus.carriers import FINE_URL, chat_about, dumped, segment_about

SECTIONS: dict[str, Any] = {
    "an unknown policy": {"policy": "guess"},
    "an empty policy": {"policy": ""},
    "a policy in other letters": {"policy": "CSP"},
    "policy null": {"policy": None},
    "policy 5": {"policy": 5},
    "policy a list": {"policy": ["csp"]},
    "policy an object": {"policy": {"policy": "csp"}},
    "a policy of 100000 letters": {"policy": "a" * 100_000},
    "dense with a knob": {"policy": "dense", "kept": 5},
    "an unknown knob": {"policy": "csp", "no_such_knob": 1},
    "an unknown preset": {"policy": "csp", "preset": "99"},
    "a preset of a number": {"policy": "csp", "preset": 65},
    "cluster layers of -1": {"policy": "csp", "cluster_layers": -1},
    "cluster layers of 10^9": {"policy": "csp", "cluster_layers": 10**9},
    "scatter layers of -1": {"policy": "csp", "scatter_layers": -1},
    "scatter layers of 10^9": {"policy": "csp", "scatter_layers": 10**9},
    "cluster tokens of 0": {"policy": "csp", "cluster_tokens": 0},
    "cluster tokens of 257": {"policy": "csp", "cluster_tokens": 257},
    "cluster tokens of 10^18": {"policy": "csp", "cluster_tokens": 10**18},
    "cluster tokens of 1.5": {"policy": "csp", "cluster_tokens": 1.5},
    "prune tokens of -1": {"policy": "csp", "prune_tokens": -1},
    "prune tokens of 257": {"policy": "csp", "prune_tokens": 257},
    "prune tokens in words": {"policy": "csp", "prune_tokens": "ten"},
    "an unknown cluster": {"policy": "csp", "cluster": "magic"},
    "an unknown scatter": {"policy": "csp", "scatter": "magic"},
    "an unknown representative": {"policy": "csp", "representative": "magic"},
    "an unknown score": {"policy": "csp", "score": "magic"},
    "100000 unknown knobs": {"policy": "csp", **{f"knob{i}": i for i in range(100_000)}},
    "fastv before layer 0": {"policy": "fastv", "layer": -1},
    "fastv behind the last layer": {"policy": "fastv", "layer": 10**6},
    "fastv keeps nothing": {"policy": "fastv", "kept": 0},
    "fastv keeps too many": {"policy": "fastv", "kept": 10**6},
    "feather in wrong order": {"policy": "feather", "layer": 6, "late_layer": 2},
    "feather with a ratio of 2": {"policy": "feather", "ratio": 2.0},
    "feather with a ratio of -1": {"policy": "feather", "ratio": -1.0},
    "feather with a stride of 0": {"policy": "feather", "stride": 0},
    "feather with a stride of -3": {"policy": "feather", "stride": -3},
    "prumerge keeps nothing": {"policy": "prumerge", "kept": 0},
    "prumerge+ keeps too many": {"policy": "prumerge+", "kept": 999},
    "prumerge merges maybe": {"policy": "prumerge", "merge": "maybe"},
    "resprune with alpha -1": {"policy": "resprune", "alpha": -1},
    "resprune with negatives that are none": {"policy": "resprune", "negatives": 5},
    "random keeps nothing": {"policy": "random", "kept": 0},
    "random with an unknown seed": {"policy": "random", "seed_per": "moon"},
    "custom without stages": {"policy": "custom"},
    "custom with no stages": {"policy": "custom", "stages": []},
    "custom with stages that are none": {"policy": "custom", "stages": "all"},
    "custom with 100000 stages": {
        "policy": "custom",
        "stages": [{"layers": [0, 1], "kept": 1}] * 100_000,
    },
    "custom with a stage of nothing": {"policy": "custom", "stages": [{}]},
    "custom with stages 500 deep": {"policy": "custom", "stages": None},
    "an unknown template": {"policy": "dense", "conv_template": "vicuna"},
    "a cache of 0": {"policy": "dense", "embedding_cache_size": 0},
    "a cache of -5": {"policy": "dense", "embedding_cache_size": -5},
    "a cache of a text": {"policy": "dense", "embedding_cache_size": "many"},
    "no masks per answer": {"policy": "dense", "max_masks_per_answer": 0},
    "no questions per call": {"policy": "dense", "max_questions_per_call": 0},
    "-1 questions per call": {"policy": "dense", "max_questions_per_call": -1},
    "a page that is maybe": {"policy": "dense", "page": "maybe"},
    "a SAM image of 1 pixel": {"policy": "dense", "sam_image_size": 1},
    "a SAM image of a million": {"policy": "dense", "sam_image_size": 1 << 20},
    "a SAM image of a text": {"policy": "dense", "sam_image_size": "small"},
    "a SAM of four bits": {"policy": "dense", "sam_quantization": "int4"},
    "an unknown encoder": {"policy": "dense", "sam_encoder": "resnet"},
    "an encoder without weights": {"policy": "dense", "sam_encoder": "mobile_sam"},
    "weights without an encoder": {"policy": "dense", "sam_encoder_weights": "/etc/passwd"},
}
"""Refused as settings of a server, and as the policy of a request."""

NO_SECTIONS: dict[str, Any] = {
    "a number": 5,
    "a text": "csp",
    "a list": [],
    "true": True,
}


def _deep() -> list[Any]:
    stages: list[Any] = []
    for _ in range(500):
        stages = [stages]
    return stages


SECTIONS["custom with stages 500 deep"]["stages"] = _deep()


def cases() -> dict[str, list[Case]]:
    """As the policy of a chat and of a call."""
    found = []
    for name, section in {**SECTIONS, **NO_SECTIONS}.items():
        options = {"mode": "force", "policy": section}
        found.append(
            Case(f"chat: {name}", dumped(chat_about(FINE_URL, segmentation=options)), CHAT)
        )
        found.append(
            Case(f"call: {name}", dumped(segment_about(FINE_URL, policy=section)), SEGMENT)
        )
    return {"policies": found}
