"""Settings of the plugin, given as `--additional-config '{"csp": {...}}'`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vllm_csp.images import SAM_IMAGE_SIZE
from vllm_csp.server_settings import ServerSettings
from vllm_csp.tokens.policies import POLICIES, knobs

SamEncoder = Literal["checkpoint", "mobile_sam"]
SamQuantization = Literal["none", "int8"]
ConversationTemplate = Literal["llava_v1", "llava_llama_2"]

# What is said of wrong settings, which a client may have sent; and how many are looked at.
MOST_PROBLEMS = 5
MOST_FIELDS = 100


class CspConfig(BaseModel):
    """What a server can choose; every field has a default that suits LISA-7B.

    Fields that are not listed here are knobs of the chosen policy (`tokens.policy_knobs`).
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    policy: str = Field(
        "dense", description="Which image tokens go through which layers; `dense` keeps all."
    )

    conv_template: ConversationTemplate = Field(
        "llava_v1",
        description="Conversation template; a request may override it in `chat_template_kwargs`.",
    )
    share_images: bool = Field(
        True,
        description="Questions about one image that begin in one step compute it once, in layers "
        "whose tokens the image alone chooses. Staged policies; `dense` has the prefix cache.",
    )
    embedding_cache_size: int = Field(
        256, ge=1, description="SAM image embeddings kept on the device (2 MiB each in bf16)."
    )
    embedding_host_cache_size: int = Field(
        0,
        ge=0,
        description="Further ones in pinned host memory, beside a GPU: those that had to go.",
    )
    max_masks_per_answer: int = Field(
        32, ge=1, description="Masks decoded per answer; further [SEG] tokens get none."
    )
    max_questions_per_call: int = Field(
        64, ge=1, description="Questions that one call of /v1/segment may ask."
    )
    page: bool = Field(True, description="Serve the page at /v1/segment/ui.")
    server: ServerSettings = Field(
        ServerSettings(), description="Limits, readiness, end and logs of the server."
    )

    sam_encoder: SamEncoder = Field(
        "checkpoint", description="SAM's image encoder: the checkpoint's own, or MobileSAM's."
    )
    sam_encoder_weights: str = Field(
        "",
        description="Weights of another encoder: a .safetensors or .pt file, a folder, a hub id.",
    )
    sam_image_size: int = Field(
        SAM_IMAGE_SIZE,
        ge=256,
        le=SAM_IMAGE_SIZE,
        multiple_of=64,
        description="Pixels of a photo's long side as SAM sees it. Fewer: faster, coarser masks.",
    )
    sam_quantization: SamQuantization = Field(
        "none", description="int8: linear layers of SAM's image encoder compute in INT8."
    )
    sam_own_stream: bool = Field(
        True,
        description="On a GPU SAM's image encoder computes beside the language model, on a stream "
        "of its own.",
    )

    @property
    def knobs(self) -> dict[str, Any]:
        """Knobs of the policy."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _check_policy(self) -> Self:
        knobs(self.policy, **self.knobs)
        return self

    @model_validator(mode="after")
    def _check_encoder(self) -> Self:
        if self.sam_encoder != "checkpoint" and not self.sam_encoder_weights:
            raise ValueError(
                f"sam_encoder {self.sam_encoder} needs sam_encoder_weights: the path of its "
                "weights (mobile_sam.pt, or as .safetensors), or a hub id"
            )
        if self.sam_encoder == "checkpoint" and self.sam_encoder_weights:
            raise ValueError("sam_encoder_weights needs sam_encoder, for example mobile_sam")
        return self

    @classmethod
    def from_additional_config(cls, additional_config: Mapping[str, Any] | None) -> CspConfig:
        """Read the `csp` entry of vLLM's `additional_config`; see `from_section`."""
        section = dict(additional_config or {}).get("csp", {})
        return cls.from_section(section, "additional_config['csp']")

    @classmethod
    def from_section(cls, section: Any, name: str) -> CspConfig:
        """Read settings that came in under `name`.

        Raises `ValueError` naming the wrong field and the allowed ones.
        """
        if not isinstance(section, Mapping):
            raise ValueError(f"{name} must be an object")
        if len(section) > MOST_FIELDS:
            raise ValueError(f"{name} has {len(section)} fields. Fields: {_allowed({})}")
        try:
            return cls(**section)
        except ValidationError as error:
            problems = "; ".join(
                ": ".join(filter(None, (".".join(map(str, item["loc"])), item["msg"])))
                for item in error.errors()[:MOST_PROBLEMS]
            )
            raise ValueError(f"{name} is wrong: {problems}. Fields: {_allowed(section)}") from error
        except ValueError as error:  # a text that is no UTF-8
            raise ValueError(f"{name} is wrong: {error}") from error


def _allowed(section: Mapping[str, Any]) -> str:
    chosen = POLICIES.get(str(section.get("policy", "dense")))
    own = ", ".join(CspConfig.model_fields)
    return own if chosen is None else f"{own}; of the policy: {', '.join(chosen.model_fields)}"
