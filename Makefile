# Two commands matter to a newcomer: `make demo` and `make test`. Both make the environment on demand.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14; do $$p -c '' 2>/dev/null && echo $$p && exit; done; echo python3)

# For a checkout that cannot be written: make demo VENV=DIRECTORY DATA=DIRECTORY puts the environment and the stack of
# the demo elsewhere. Both are given on the command line only.
VENV := .venv
DATA :=
BIN := $(VENV)/bin
ifneq ($(VENV),.venv)
$(if $(filter 1,$(words $(VENV))),,$(error VENV is a folder in whose path is no blank))
export MYPY_CACHE_DIR := $(VENV)/caches/mypy
export RUFF_CACHE_DIR := $(VENV)/caches/ruff
export HYPOTHESIS_STORAGE_DIRECTORY := $(VENV)/caches/hypothesis
export PYTEST_ADDOPTS := -o cache_dir=$(VENV)/caches/pytest
ARROWS := --cache-dir $(VENV)/caches/imports
OURS = @test -e $(VENV)/pyvenv.cfg || test ! -d $(VENV) || rmdir $(VENV) 2>/dev/null || { echo '$(VENV) holds something else than an environment; name a new folder: make VENV=...' >&2; exit 1; }
endif

# What would have pip or Python put and find things elsewhere; where packages come from stays the shell's to say.
unexport PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_PYTHON PIP_DRY_RUN PIP_NO_DEPS PYTHONHOME PYTHONPATH

.PHONY: install demo test test-rooms test-one-of-each-fault test-faults test-other-faults test-long soak bench lint docs wheel sbom audit lock up down test-compose clean

install: $(VENV)/installed

EDITABLE = DIST_EXTRA_CONFIG="$$(cd $(VENV)/build && pwd)/setup.cfg" $(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --constraint constraints.txt --editable

# The stamp gets its name last. An environment that was left half installed, or whose Python is gone, is made anew; one
# with other versions than pyproject.toml and constraints.txt now name is brought to them. What setuptools notes of this
# checkout goes into the environment, not into the checkout.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 15) else "Barlow Lab needs Python 3.11, 3.12, 3.13 or 3.14, and $(PYTHON) is %d.%d: make PYTHON=/path/to/python3.12 ..." % sys.version_info[:2])'
	$(OURS)
	@test ! -e $(VENV)/installing || rm -rf $(VENV)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@mkdir -p $(VENV)/build && touch $(VENV)/installing
	@printf '[egg_info]\negg_base = %s\n' "$$(cd $(VENV)/build && pwd)" >$(VENV)/build/setup.cfg
	$(EDITABLE) '.[dev]'
	@test -x $(BIN)/barlow || { echo "pip has put Barlow Lab somewhere else than $(VENV): see '$(BIN)/python -m pip config list' for target, prefix, root or user" >&2; exit 1; }
	@mv $(VENV)/installing $@

demo: install
	$(BIN)/barlow demo $(if $(DATA),--data '$(DATA)')

# One fault of each class mostly waits, for leases and restarts, so it runs beside the other tests.
test: lint
	@$(MAKE) --no-print-directory --jobs 2 test-rooms test-one-of-each-fault

# The files in which a test has this mark: to load all others beside them takes each process half a minute.
marked = $(shell grep -rlw --include='test_*.py' 'mark\.$(1)' tests | sort)

# One thread a process: the test processes share the cores already.
test-rooms: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not faults and not long and not compose'

test-one-of-each-fault: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m representative $(call marked,representative)

# What no fault is done to, and that takes too long for every run.
test-long: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m long $(call marked,long)

test-faults: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m faults tests/faults $(call marked,faults)

# Those that `make test` leaves out.
test-other-faults: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m 'faults and not representative' tests/faults $(call marked,faults)

# make soak [MINUTES=30] [SEED=n]: a stream of jobs under random faults, each job judged.
soak: install
	OMP_NUM_THREADS=1 PYTHONPATH=tests/support $(BIN)/python tests/faults/soak.py --minutes $(or $(MINUTES),30) $(if $(SEED),--seed $(SEED))

# The trainer against the reference, on this machine's cores; renews benchmarks/results and docs/performance.md.
bench: install
	$(BIN)/python benchmarks/trainer_cpu.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports $(ARROWS)

# The pages of docs/ and those that the code makes, as a site. What builds it is installed when it is first asked for; the
# build itself needs no network.
SITE := $(VENV)/build/site
docs: $(VENV)/installed-docs
	$(BIN)/python docs/site/build.py $(SITE)
	@echo $(SITE)/html/index.html

$(VENV)/installed-docs: $(VENV)/installed
	$(EDITABLE) '.[docs]'
	@touch $@

# What a release is: dist/barlow_lab-VERSION-py3-none-any.whl. It is made anew, so that no file of a former one is left in
# it, with the setuptools that is installed here.
DIST := dist
WHEEL := $(VENV)/build/wheel
wheel: install
	@rm -rf $(WHEEL) && mkdir -p $(WHEEL)
	@printf '[build]\nbuild_base = %s\n[egg_info]\negg_base = %s\n' "$$(cd $(WHEEL) && pwd)" "$$(cd $(WHEEL) && pwd)" >$(WHEEL)/setup.cfg
	DIST_EXTRA_CONFIG="$$(cd $(WHEEL) && pwd)/setup.cfg" $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation --wheel-dir '$(DIST)' .

# What is installed here, each distribution with its version, as CycloneDX; the same bytes each time.
SBOM := $(VENV)/sbom.cdx.json
sbom: install
	@$(BIN)/cyclonedx-py environment --output-reproducible --no-validate --output-file $(SBOM) $(BIN)/python 2>$(VENV)/sbom.log || { cat $(VENV)/sbom.log >&2; exit 1; }
	@echo $(SBOM)

# Asks PyPI for known faults of what constraints.txt pins, the locks of the images included.
audit: install
	@sh docker/audit.sh $(BIN)/pip-audit

# After a change of pyproject.toml or constraints.txt: what the images install, with hashes. Asks the package index.
lock: install
	@UV=$(BIN)/uv sh docker/lock.sh

# The whole system in containers, on this host. `make up GPU=1` gives the worker the NVIDIA GPUs, once and for all:
# COMPOSE_FILE in .env says which files every docker compose here reads.
up:
	$(if $(filter-out 0 1,$(GPU)),$(error GPU=$(GPU) says nothing; GPU=1 gives the worker the GPUs of this host))
	@sh docker/secrets.sh
	@chmod -R go+rX recipes
	$(if $(filter 1,$(GPU)),@sh docker/gpus.sh)
	BARLOW_REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) docker compose up --build --detach --wait
	@sh docker/addresses.sh

# Stops it; volumes and secrets stay, and `make up` goes on where it was.
down:
	docker compose down

# Builds the images, runs the system in containers and breaks it; needs Docker with Compose 2.
test-compose: install
	$(BIN)/python -m pytest -m compose -v tests/compose

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
