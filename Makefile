# Two commands do everything: `make demo` shows what it is, `make test` checks that it works. Both install first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# What is not compiled at installation is compiled at first use, and kept, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test results test-nightly test-faults fuzz lint format clean web test-e2e test-notebooks docs coverage release

install: $(STAMP)

# --no-compile: pip would compile every file of every package; Python compiles what is used on first use.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install Python 3.11 or pass PYTHON=..." >&2; exit 2; }
	@echo "installing into $(VENV): a few minutes the first time (PyTorch is large)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e ".[dev]"
	@touch $@

demo: install
	$(BIN)/python examples/demo.py

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Tables and pictures about the shipped models, those that are older than the weights. DOVE_SQUEEZENET names SqueezeNet's weights.
results: install
	$(BIN)/python scripts/results.py --data "$(DATA)"

test-nightly: install
	$(BIN)/python -m pytest -n 2 --dist loadfile -m nightly

test-faults: install
	$(BIN)/python -m pytest -m faults tests/faults tests/vlm

# Seconds for each of the fuzzers.
FUZZ_SECONDS ?= 120

fuzz: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[fuzz]"
	$(BIN)/python tests/fuzz/fuzz_images.py -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=4096 -timeout=20
	$(BIN)/python tests/fuzz/fuzz_annotations.py -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=4096 -timeout=20

# Gradio has its own environment, which goes on from $(VENV): it needs another Pillow than the one that is pinned there.
WEB := .venv-demo

$(WEB)/.installed: $(STAMP) constraints-demo.txt
	test -x $(WEB)/bin/python || $(PYTHON) -m venv $(WEB)
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'), '$(CURDIR)/src', sep='\n')" \
		> "$$($(WEB)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/base.pth"
	$(WEB)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -r constraints-demo.txt
	@touch $@

web: $(WEB)/.installed
	$(WEB)/bin/python -m dove demo

# The browser is Debian's, where there is none. Gradio leaves sockets open, which is none of our errors.
test-e2e: $(WEB)/.installed
	@command -v chromium || command -v chromium-browser || command -v google-chrome \
		|| apt-get install -y --no-install-recommends chromium
	$(WEB)/bin/python -m pytest tests/demo tests/e2e -W default

# Docs and notebooks bring tools that nothing else needs.
$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e ".[docs]"
	@touch $@

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

test-notebooks: $(VENV)/.docs
	$(BIN)/python -m pytest tests/notebooks

coverage: $(VENV)/.docs
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov=dove --cov-report=term-missing:skip-covered

release: install
	$(BIN)/python scripts/release.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
