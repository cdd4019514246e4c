# make serve | make test | make test-platforms | make test-clients | make test-light-clients | make bench | make bench-quick | make install | make lock | make format | make docs
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
TOOLS := $(VENV)/tools
CLIENTS := azureml-inference-server-http boto3 eas-prediction gcp-storage-emulator gcsfs google-cloud-aiplatform ibm-watsonx-ai \
  inference-schema kserve mlflow mlserver moto oci s3fs sagemaker-core
LIGHT_CLIENTS := boto3 eas-prediction google-cloud-aiplatform ibm-watsonx-ai
VENDORS := appengine awsebcli azure hadolint heroku honcho nginx open-inference-openapi openapi-spec-validator pyarrow pythonanywhere pyuwsgi tritonclient wrk
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate

.PHONY: serve test install lint types pytest test-platforms test-clients test-light-clients bench bench-quick lock-peers format docs lock clean
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
	$(BIN)/python -m pytest -n 3 --dist loadfile --ignore=tests/vendors --ignore=tests/clients \
	  --ignore=tests/rehearsal

# Programs that nobody here wrote read the deployment files, Arrow is sent, and every platform is rehearsed. pyarrow is not
# among the requirements, and stands beside them only here, because pandas would take it up.
test-platforms: $(VENV)/.installed-dev $(VENDORS:%=$(TOOLS)/%/.made)
	$(BIN)/python -m pytest tests/vendors -q -n 2 --ignore=tests/vendors/arrow
	PYTHONPATH="$$(echo $(abspath $(TOOLS))/pyarrow/lib/python*/site-packages)" \
	  $(BIN)/python -m pytest tests/vendors/arrow tests/protocols/test_native.py tests/protocols/test_protocols.py -q
	PATH="$(abspath $(TOOLS))/nginx:$$PATH" $(BIN)/python -m pytest tests/rehearsal -q  # alone, because it measures

# Those clients that are installed in a minute.
test-light-clients: $(VENV)/.installed-dev $(LIGHT_CLIENTS:%=$(TOOLS)/%/.made)
	$(BIN)/python -m pytest tests/clients/test_eas.py tests/clients/test_sagemaker.py tests/clients/test_vertex.py \
	  tests/clients/test_watsonx.py -q -n 2 --dist loadfile

# The clouds' own clients ask a service of ours, each in an environment of its own.
test-clients: $(VENV)/.installed-dev $(CLIENTS:%=$(TOOLS)/%/.made)
	$(BIN)/python -m pytest tests/clients -q -n 2 --dist loadfile

# Everything takes about an hour; less of it: make bench PEERS="anyport twin" WORKLOADS=penguins ROUNDS=3 SECONDS=4
bench: $(VENV)/.installed-dev $(TOOLS)/wrk/.made
	@PATH="$(abspath $(TOOLS))/wrk:$$PATH" $(BIN)/python -m bench $(if $(PEERS),--peers $(PEERS)) \
	  $(if $(WORKLOADS),--workloads $(WORKLOADS)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS))

# Fails if the tree answers fewer requests a second than the last commit: make bench-quick FALL=10 for ten per cent.
bench-quick: $(VENV)/.installed-dev $(TOOLS)/wrk/.made
	@PATH="$(abspath $(TOOLS))/wrk:$$PATH" $(BIN)/python -m bench.quick $(if $(FALL),--fall $(FALL)) \
	  $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS))

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

# Pins the benchmark's peers, each with the scikit-learn of requirements.txt even where it asks for an older one.
lock-peers: $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	grep -oE '^(joblib|numpy|pandas|scikit-learn|scipy|threadpoolctl)==[^ ]+' requirements.txt > $(VENV)/model-pins.txt
	for asked in bench/peers/*/requirements.in; do \
	  { echo "# Made by \`make lock-peers\` from requirements.in."; \
	    $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
	      --override $(VENV)/model-pins.txt $$asked; } > $(VENV)/peer.txt && mv $(VENV)/peer.txt $${asked%.in}.txt || exit 1; \
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

# Each of those programs has an environment of its own, because their pins conflict.
$(TOOLS)/%/.made: tests/vendors/requirements/%.txt | $(BIN)/python
	@echo "installing $< into $(TOOLS)/$*"
	@rm -rf $(TOOLS)/$* && $(BIN)/python -m venv --without-pip $(TOOLS)/$*
	@$(BIN)/python -m pip --python $(TOOLS)/$*/bin/python install --quiet --disable-pip-version-check \
	  --no-compile --no-deps -r $<
	@touch $@

# Of the Heroku client one file is run, which imports nothing that must be installed.
$(TOOLS)/heroku/.made: tests/vendors/requirements/heroku.txt
	@echo "unpacking npm's heroku into $(TOOLS)/heroku"
	@command -v npm >/dev/null || { \
	  echo "anyport: npm is not installed; make test-platforms needs Node.js 20 or later"; exit 1; }
	@rm -rf $(TOOLS)/heroku && mkdir -p $(TOOLS)/heroku
	@npm pack --silent --pack-destination $(TOOLS)/heroku "$$(cat $<)" >/dev/null
	@tar -xzf $(TOOLS)/heroku/heroku-*.tgz --strip-components=1 -C $(TOOLS)/heroku
	@touch $@

# The machine's nginx, else Debian's, unpacked but not installed: so nothing starts it.
$(TOOLS)/nginx/.made:
	@echo "linking or unpacking nginx into $(TOOLS)/nginx"
	@rm -rf $(TOOLS)/nginx && mkdir -p $(TOOLS)/nginx
	@if found=$$(PATH="$$PATH:/usr/sbin" command -v nginx); then ln -s "$$found" $(TOOLS)/nginx/nginx; else \
	  cd $(TOOLS)/nginx && { apt-get -qq update; apt-get -qq download nginx; } >apt.log 2>&1; \
	  dpkg-deb -x nginx_*.deb . 2>>apt.log && ln -s usr/sbin/nginx nginx; fi || true
	@$(TOOLS)/nginx/nginx -v 2>/dev/null || { \
	  echo "anyport: nginx could not be had; install it with: sudo apt install nginx"; exit 1; }
	@touch $@

# The machine's wrk, else Debian's, unpacked but not installed.
$(TOOLS)/wrk/.made:
	@echo "linking or unpacking wrk into $(TOOLS)/wrk"
	@rm -rf $(TOOLS)/wrk && mkdir -p $(TOOLS)/wrk
	@if found=$$(command -v wrk); then ln -s "$$found" $(TOOLS)/wrk/wrk; else \
	  cd $(TOOLS)/wrk && { apt-get -qq update; apt-get -qq download wrk libluajit-5.1-2 libluajit-5.1-common; } >apt.log 2>&1; \
	  for package in *.deb; do dpkg-deb -x "$$package" . 2>>apt.log; done; \
	  printf '#!/bin/sh\nhere=$$(dirname "$$0")\nLD_LIBRARY_PATH=$$(echo "$$here"/usr/lib/*-linux-gnu) exec "$$here/usr/bin/wrk" "$$@"\n' > wrk; \
	  chmod +x wrk; fi || true
	@$(TOOLS)/wrk/wrk -v 2>&1 | grep -q '^wrk' || { \
	  echo "anyport: wrk could not be had; install it with: sudo apt install wrk"; exit 1; }
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
