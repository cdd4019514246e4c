# make serve | make test | make install | make lock | make format | make docs
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate

.PHONY: serve test install lint types pytest format docs lock clean
.DEFAULT_GOAL := serve

serve: $(VENV)/.installed
	@$(BIN)/flask example
	@exec $(BIN)/gunicorn -c gunicorn.conf.py service.wsgi:app

install: $(VENV)/.installed

test: lint types pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

pytest: $(VENV)/.installed-dev $(VENV)/.gunicorn-source
	$(BIN)/python -m pytest -n 3 --dist loadfile

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Writes the generated parts of README.md.
docs: $(VENV)/.installed-dev
	$(BIN)/python -m tests.reference

# Pins every package exactly, by the hashes of its wheels, for Python 3.11 and later.
lock: $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	for name in requirements requirements-dev; do \
	  { echo "# Made by \`make lock\` from $$name.in."; echo "--only-binary :all:"; \
	    $(LOCK) $$name.in --output-file $$name.txt >/dev/null && cat $$name.txt; } > .$$name.new && mv .$$name.new $$name.txt || exit 1; \
	done

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache

$(VENV)/.installed: requirements.txt | $(BIN)/python
	@echo "installing requirements.txt into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt | $(BIN)/python
	@echo "installing requirements-dev.txt into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@ $(VENV)/.installed

# gunicorn's own invalid requests, for tests/faults/invalid_requests.py: they are in its source distribution only.
$(VENV)/.gunicorn-source: requirements.txt | $(BIN)/python
	@echo "unpacking gunicorn's source into $(VENV)/gunicorn-source"
	@rm -rf $(VENV)/gunicorn-source && mkdir $(VENV)/gunicorn-source
	@sed -n '/^gunicorn==/,/[^\\]$$/p' requirements.txt > $(VENV)/gunicorn-source/pin.txt
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary gunicorn --require-hashes \
	  --dest $(VENV)/gunicorn-source -r $(VENV)/gunicorn-source/pin.txt
	@tar -xzf $(VENV)/gunicorn-source/gunicorn-*.tar.gz --strip-components=1 -C $(VENV)/gunicorn-source
	@touch $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "anyport: $(PYTHON) is not installed; install Python 3.11 or later, or say which with: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "anyport: Python 3.11 or later is needed, this is: $$($(PYTHON) --version 2>&1)"; \
	  echo "         say another with: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) >/dev/null || { rm -rf $(VENV); \
	  echo "anyport: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu install it with:"; \
	  echo "         sudo apt install python3-venv"; exit 1; }
