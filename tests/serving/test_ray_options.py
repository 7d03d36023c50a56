"""Options of a service on Ray, as its own command and as `serve run` take them."""

from __future__ import annotations

import pytest
import typer

pytest.importorskip("ray")

from vllm_csp.serving.batch.on_ray.cluster import gpus_per_engine
from vllm_csp.serving.ray_serve import Options, named_checkpoints


def test_serve_run_gives_all_values_as_text() -> None:
    given = {"models": '{"lisa": "a/checkpoint"}', "gpus": "0.5", "max_replicas": "8"}
    options = Options.model_validate(given)
    assert options.models == {"lisa": "a/checkpoint"}
    assert (options.gpus, options.max_replicas, options.min_replicas) == (0.5, 8, 1)


@pytest.mark.parametrize("models", ["{}", "lisa=a", "[1]", {}], ids=str)
def test_without_a_model_by_name_it_is_refused(models: object) -> None:
    with pytest.raises(ValueError, match="models"):
        Options.model_validate({"models": models})


@pytest.mark.parametrize(
    ("asked", "there", "reserved"),
    [
        (None, {"CPU": 2.0}, 0),
        (None, {"GPU": 4.0}, 1),
        (0.25, {"GPU": 4.0}, 0.25),
        (0, {"GPU": 1}, 0),
    ],
)
def test_each_engine_reserves_a_gpu_where_there_are_any(
    asked: float | None, there: dict[str, float], reserved: float
) -> None:
    assert gpus_per_engine(asked, there) == reserved


def test_models_are_named_on_the_command_line() -> None:
    assert named_checkpoints(["a=one", "b=two=2"]) == {"a": "one", "b": "two=2"}


@pytest.mark.parametrize("word", ["checkpoint", "=checkpoint", "name="])
def test_what_has_no_name_is_told(word: str) -> None:
    with pytest.raises(typer.BadParameter, match="write NAME=CHECKPOINT"):
        named_checkpoints([word])
