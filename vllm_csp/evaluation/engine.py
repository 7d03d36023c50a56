"""Asks engines of this process, offline; policies of one KV layout may share one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from vllm_csp.config import ConversationTemplate
from vllm_csp.evaluation.asker import Asked, Reply
from vllm_csp.evaluation.policy_run import PolicyRun, engine_section
from vllm_csp.schedules import follows, vision_needs
from vllm_csp.tokens import Schedule
from vllm_csp.tokens.accounting import kv_ratio


@dataclass(frozen=True)
class EngineOptions:
    """How engines are made, the policy apart.

    images_in_flight: photos whose SAM embeddings must be held at a time. arguments: of `vllm.LLM`.
    """

    checkpoint: str
    mode: str = "force"
    template: ConversationTemplate = "llava_v1"
    max_tokens: int = 64
    images_in_flight: int = 16
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Host:
    """Runs, with their schedules, that one engine answers; the first is the engine's own."""

    runs: tuple[PolicyRun, ...]
    schedules: tuple[Schedule, ...]


def decoder_size(checkpoint: str) -> tuple[int, int]:
    """Decoder layers and image tokens of a LISA checkpoint (a folder or a hub id)."""
    from vllm_csp.models.config import lisa_aware_parser

    _, config = lisa_aware_parser(object)().parse(checkpoint, trust_remote_code=False)
    return config.text_config.num_hidden_layers, config.num_image_tokens


def plan_hosts(
    runs: Sequence[PolicyRun], size: tuple[int, int], *, share: bool = False
) -> list[Host]:
    """Which runs are answered by one engine: each by its own, or as few engines as can be.

    An engine has one SAM, and can follow other schedules of its own layout that
    need no more of the vision tower (`docs/policies.md`, "Per request").
    Raises: ValueError for impossible policies, of all runs.
    """
    schedules = [run.schedule(*size) for run in runs]
    if not share:
        return [Host((run,), (one,)) for run, one in zip(runs, schedules, strict=True)]
    groups: list[list[int]] = []
    # Those that need most go first: they can take in the others.
    for index in sorted(range(len(runs)), key=lambda i: -len(vision_needs(schedules[i]))):
        for group in groups:
            same_sam = runs[group[0]].sam == runs[index].sam
            if same_sam and _follows(schedules[group[0]], schedules[index]):
                group.append(index)
                break
        else:
            groups.append([index])
    groups.sort(key=min)
    return [
        Host(tuple(runs[i] for i in group), tuple(schedules[i] for i in group)) for group in groups
    ]


def _follows(host: Schedule, guest: Schedule) -> bool:
    if host.is_dense or guest.is_dense:
        return host.is_dense and guest.is_dense
    return follows(guest, host)


class EngineAsker:
    """One engine, started here and ended by `close`."""

    def __init__(self, host: Host, options: EngineOptions) -> None:
        from vllm_csp.serving.segmenter import Segmenter
        from vllm_csp.serving.statistics import TokenStatistics

        section = {
            **engine_section(host.schedules[0]),
            "embedding_cache_size": options.images_in_flight,
            **asdict(host.runs[0].sam),
        }
        self._options = options
        # The host's own schedule is what the engine follows unasked.
        own = host.schedules[0]
        self._schedules = ["" if one == own else one.model_dump_json() for one in host.schedules]
        self._segmenter = Segmenter(
            options.checkpoint,
            additional_config={"csp": section},
            **{**_defaults(), **options.arguments},
        )
        config = self._segmenter.llm.llm_engine.vllm_config
        self._statistics = TokenStatistics(config)
        self._block_size: int = config.cache_config.block_size

    def ask(self, questions: Sequence[Asked]) -> list[Reply]:
        """See `Asker`."""
        from vllm_csp.serving.segmenter import Question

        answers = self._segmenter.ask(
            [
                Question(
                    one.text,
                    one.image,
                    mode=self._options.mode,
                    template=self._options.template,
                    max_tokens=self._options.max_tokens,
                    schedule=self._schedules[one.number],
                )
                for one in questions
            ]
        )
        return [
            Reply(one.text, one.masks, self._cost(len(one.prompt_token_ids))) for one in answers
        ]

    def close(self) -> None:
        """See `Asker`."""
        self._segmenter.close()

    def _cost(self, prompt_length: int) -> dict[str, Any]:
        # All schedules of a host have one layout, on which costs depend.
        figures = self._statistics.of_prompt(prompt_length)
        ratio = kv_ratio(self._statistics.schedule, prompt_length, self._block_size)
        return {**figures, "kv_ratio": ratio}


def _defaults() -> dict[str, Any]:
    from vllm.platforms import current_platform

    # Compilation takes longer than most evaluations; staged policies run eagerly anyway, so that
    # `dense` beside them should too.
    chosen: dict[str, Any] = {
        "enforce_eager": True,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if current_platform.is_cpu():
        chosen |= {"kv_cache_memory_bytes": 1 << 29, "max_num_seqs": 16}
    return chosen
