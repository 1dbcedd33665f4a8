# Two commands matter to a newcomer: `make demo` and `make test`. Both make the environment on demand.
PYTHON ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
BIN := .venv/bin

.PHONY: install demo test test-rooms test-one-of-each-fault test-faults test-long soak bench lint up down test-compose clean

install: .venv/installed

# The stamp gets its name last. An environment that was left half installed, or whose Python is gone, is made anew; one
# with other versions than pyproject.toml and constraints.txt now name is brought to them.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Barlow Lab needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	@test ! -e .venv/installing || rm -rf .venv
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@touch .venv/installing
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@mv .venv/installing $@

demo: install
	$(BIN)/barlow demo

# One fault of each class mostly waits, for leases and restarts, so it runs beside the other tests.
test: lint
	@$(MAKE) --no-print-directory --jobs 2 test-rooms test-one-of-each-fault

# One thread a process: the test processes share the cores already.
test-rooms: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not faults and not long and not compose'

test-one-of-each-fault: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m representative

# What no fault is done to, and that takes too long for every run.
test-long: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m long

test-faults: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m faults

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
	$(BIN)/lint-imports

# The whole system in containers, on this host. `make up GPU=1` gives the worker the NVIDIA GPUs, once and for all:
# COMPOSE_FILE in .env says which files every docker compose here reads.
up:
	$(if $(filter-out 0 1,$(GPU)),$(error GPU=$(GPU) says nothing; GPU=1 gives the worker the GPUs of this host))
	@sh docker/secrets.sh
	@chmod -R go+rX docker/postgres-init.sh recipes
	$(if $(filter 1,$(GPU)),@sh docker/gpus.sh)
	BARLOW_REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) docker compose up --build --detach --wait
	@sh docker/addresses.sh

# Stops it; volumes and secrets stay, and `make up` goes on where it was.
down:
	docker compose down

# Builds the images, runs the system in containers and breaks it; needs Docker with Compose 2.
test-compose: install
	$(BIN)/python -m pytest -m compose -v

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
