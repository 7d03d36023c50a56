# `make demo` and `make test` are all a new machine needs; both build .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A CUDA machine gets the CUDA engine, every other one the CPU engine.
ENGINE ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo cuda || echo cpu)
STAMP := $(VENV)/.setup-$(ENGINE)

.PHONY: setup demo test test-slow test-v2 test-gpu robustness load lint fiftyone clean
setup: $(STAMP)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[$(ENGINE),dev]'
ifeq ($(ENGINE),cpu)
	$(BIN)/python .ci/cpu_environment.py
endif
	touch $@

demo: setup
	$(BIN)/vllm-csp demo

test: setup lint
	$(BIN)/python -m pytest -m 'not gpu and not slow' --durations=20

test-slow: setup
	$(BIN)/python -m pytest -m slow

# Model runner V2, which GPUs run, on a CPU in Triton's interpreter; over an hour.
test-v2: setup
	TRITON_INTERPRET=1 VLLM_USE_V2_MODEL_RUNNER=1 PYTHONPATH=$(CURDIR)/tests/runner_v2/on_path:$(CURDIR) \
	$(BIN)/python -m pytest -m 'not gpu and not slow' tests/staged \
	tests/serving/test_answers.py tests/serving/test_streams.py tests/serving/test_choices.py

test-gpu: setup
	$(BIN)/python -m pytest -m gpu

# Every bad input of tests/robustness, and more fuzzing; a quarter of an hour.
robustness: setup
	$(BIN)/python -m pytest tests/robustness -m 'slow or not slow'

# 64 clients for ten minutes, of whose requests a tenth is given up.
load: setup
	$(BIN)/python -m benchmarks.load

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# For one test: FiftyOne and vLLM want other versions of the same packages.
fiftyone: $(VENV)-fiftyone/.setup
$(VENV)-fiftyone/.setup:
	test -x $(VENV)-fiftyone/bin/python || $(PYTHON) -m venv $(VENV)-fiftyone
	$(VENV)-fiftyone/bin/python -m pip install --quiet httpx pycocotools pydantic fiftyone
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-fiftyone build dist *.egg-info
