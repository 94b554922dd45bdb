# make demo    see it work, in a browser: https://localhost:8443; PORT names another port
# make test    everything: linters, types, tests with coverage
# make lint    linters and types alone
# make thorough  what takes long and is not in `make test`: crowds of connections, faults, attacks, proxies, replacements
# make compat  the quick tests with every supported Gunicorn and Python; COMPAT=--pairs runs each of them once
# make soak    mixed load, attacks and reloads for SOAK_SECONDS, half an hour; memory and lost requests are counted
# make bench   compare the servers; BENCH takes arguments for `python -m bench` (see --help)
# make bench-compare A=rev B=rev   compare two revisions of this package; . is the working tree
# make attack  attack the workers beside bystanders; ATTACK takes arguments for `python -m bench.attack` (see --help)
# make profile where a request's time and calls go; PROFILE takes arguments for `python -m bench.profile`
# make fuzz    look for mistakes in what reads from peers, FUZZ_SECONDS long; FUZZ names targets (python -m tests.fuzz)
# make docs    build the documentation into build/site; every link must lead somewhere
# make links   ask for the page of every link that leads elsewhere; needs a network, and so is not in CI
# make clean   remove what the others have made
#
# Python >= 3.10 is all they need: PYTHON names another than python3.

PYTHON ?= python3
VENV := .venv
BENCH_VENV := .venv-bench
FUZZ_VENV := .venv-fuzz
FUZZ_SECONDS ?= 600
PROPERTIES := $(addprefix tests/protocol/test_,bounds.py codec_fast.py differential.py huffman.py model.py \
    properties.py)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check
PORT ?= 8443
OVERALL_FLOOR := 95
PROTOCOL_FLOOR := 100
CORES := $(shell getconf _NPROCESSORS_ONLN)
PYTEST := pytest -q --durations 10
# Tests in memory keep a core busy each, but for moments; those that start processes wait most of the time.
BUSY := -n $(shell expr 1 + $(CORES)) --maxprocesses 8 --dist worksteal
WAITING := -n $(shell expr 3 '*' $(CORES)) --maxprocesses 16 --dist worksteal
BUDGETS := $(wildcard ../shared/tools/budgets.py)

export PYTHON
# The tests start hundreds of processes, which would compile the same modules over and over.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test thorough lint compat soak bench bench-compare attack profile fuzz docs links clean packages bench-packages

demo: $(VENV)/demo
	@echo
	@echo "  Open https://localhost:$(PORT)/ in a browser; Ctrl-C ends the demo. The browser will warn of the certificate,"
	@echo "  which was made for this run alone: proceed. HTTP/1.1, to compare with, has the next port. With curl:"
	@echo
	@echo "    curl --insecure --http2 --verbose https://localhost:$(PORT)/"
	@echo
	@cd examples/demo && exec $(abspath $(BIN))/gunicorn-h2 --bind 127.0.0.1:$(PORT)

test: packages lint
	$(BIN)/coverage erase
	$(BIN)/coverage run --concurrency=thread -m $(PYTEST) $(BUSY) -m "not (uncovered or alone or thorough)"
	$(BIN)/python -m $(PYTEST) $(WAITING) -m "uncovered and not (alone or thorough)"
	$(BIN)/python -m $(PYTEST) -m "alone and not thorough"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=$(OVERALL_FLOOR)
	$(BIN)/coverage report --fail-under=$(PROTOCOL_FLOOR) --include='gunicorn_h2/protocol/*'

thorough: packages $(VENV)/dev $(VENV)/schemas
	$(BIN)/python -m $(PYTEST) $(WAITING) -m "thorough and not alone"
	$(BIN)/python -m $(PYTEST) -m "thorough and alone"

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(if $(BUDGETS),$(BIN)/python $(BUDGETS))

compat:
	.ci/compat $(COMPAT)

soak: packages $(VENV)/dev
	$(BIN)/python -m tests.soak $(SOAK)

bench: $(BENCH_VENV)/bench bench-packages
	$(BENCH_VENV)/bin/python -m bench $(BENCH)

bench-compare: $(BENCH_VENV)/bench bench-packages
	@test -n "$(A)" -a -n "$(B)" || { echo "make bench-compare A=rev B=rev" >&2; exit 2; }
	$(BENCH_VENV)/bin/python -m bench --compare $(A) $(B) $(BENCH)

attack: $(BENCH_VENV)/bench
	$(BENCH_VENV)/bin/python -m bench.attack $(ATTACK)

profile: $(BENCH_VENV)/bench bench-packages
	$(BENCH_VENV)/bin/python -m bench.profile $(PROFILE)

# A sixth of the time is for the property tests, with more random examples than in `make test`; in less than a minute, none.
fuzz: $(FUZZ_VENV)/fuzz
	$(FUZZ_VENV)/bin/python -m tests.fuzz --seconds $$(( $(FUZZ_SECONDS) * 5 / 6 )) --jobs $(CORES) $(FUZZ)
	test $(FUZZ_SECONDS) -lt 60 || FUZZ_EFFORT=$$(( $(FUZZ_SECONDS) / 20 + 1 )) $(FUZZ_VENV)/bin/python -m $(PYTEST) $(BUSY) --timeout 0 $(PROPERTIES)

docs: $(VENV)/docs
	$(BIN)/mkdocs build --quiet --strict
	@echo "build/site/index.html"

links: $(VENV)/dev
	$(BIN)/python -m tests.docs.links

bench-packages:
	@.ci/need h2load=nghttp2-client nginx=nginx

packages:
	@.ci/need curl=curl nghttp=nghttp2-client h2load=nghttp2-client node=nodejs nginx=nginx haproxy=haproxy \
	    openssl=openssl caddy=caddy systemd-analyze=systemd systemd-socket-activate=systemd

$(BIN)/python $(BENCH_VENV)/bin/python $(FUZZ_VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Python 3.10 or newer is needed: make PYTHON=..." >&2; exit 1; }
	@.ci/need venv=python3-venv
	$(PYTHON) -m venv $(@D)/..

$(VENV)/demo: setup.cfg examples/demo/requirements.txt | $(BIN)/python
	$(PIP) -e '.[devcert]' -r examples/demo/requirements.txt
	@touch $@

$(VENV)/dev: setup.cfg | $(BIN)/python
	$(PIP) -e '.[dev]'
	@touch $@

# Schemas of configurations, in a folder of their own: their modules have the names of others (google, opentelemetry).
$(VENV)/schemas: | $(BIN)/python
	$(PIP) --no-compile --target $@ 'kubernetes-validate>=1.31' 'xds-protos>=1.70'

$(VENV)/docs: setup.cfg | $(BIN)/python
	$(PIP) -e '.[docs]'
	@touch $@

$(BENCH_VENV)/bench: setup.cfg | $(BENCH_VENV)/bin/python
	$(BENCH_VENV)/bin/python -m pip install -q --disable-pip-version-check -e '.[bench]'
	@touch $@

$(FUZZ_VENV)/fuzz: setup.cfg | $(FUZZ_VENV)/bin/python
	$(FUZZ_VENV)/bin/python -m pip install -q --disable-pip-version-check -e '.[fuzz]' || { \
		echo "atheris has wheels for CPython 3.10 to 3.14 on Linux (x86-64) alone: make fuzz PYTHON=..." >&2; \
		echo "make test plays the fuzzer's corpus without it." >&2; exit 1; }
	@touch $@

clean:
	rm -rf $(VENV) $(BENCH_VENV) $(FUZZ_VENV) .fuzz tests/fuzz/crashes
	rm -rf .venv-compat-* build dist *.egg-info .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
