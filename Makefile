# make setup | check | test | unit | demo | bench | bench-sdl | selftest | clean
SHELL := /bin/bash
PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check -q
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: setup setup-test check test unit demo bench bench-sdl selftest lock clean

setup: .venv/ready-run
setup-test: .venv/ready-test

.venv/bin/python:
	@command -v python3 >/dev/null || { echo "install Python 3.11 or newer"; exit 1; }
	@.ci/python.sh .venv

.venv/ready-run: requirements.lock requirements-build.lock pyproject.toml | .venv/bin/python
	@echo "setup: installing gpubid into .venv"
	@$(PIP) install --require-hashes -r requirements-build.lock
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

.venv/ready-test: requirements-dev.lock pyproject.toml | .venv/ready-run
	@echo "setup: installing what the tests need into .venv"
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@.ci/packages.sh
	@touch $@

check: setup-test
	.venv/bin/ruff format --no-cache --check .
	.venv/bin/ruff check --no-cache .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache
	.venv/bin/deptry .
	$(PY) -m pytest -q tests/house

unit: setup-test
	$(PY) -m pytest -q -n 2 -m "not docker and not process and not postgres and not slow" tests

test: check
	$(PY) -m tests.run

demo: setup
	@$(PY) -m tests.acceptance.demo

bench: setup-test
	$(PY) -m tests.bench

bench-sdl: setup-test
	$(PY) -m tests.bench.sdl

selftest: setup-test
	$(PY) -m tests.selftest

lock:
	uv pip compile -q --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --extra postgres --extra wallet pyproject.toml -o requirements.lock
	uv pip compile -q --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --all-extras --group dev pyproject.toml -o requirements-dev.lock

clean:
	.ci/engine.sh stop
	rm -rf .venv build
