# Shortcuts for contributors. Continuous integration calls .ci/run, not this file.
PYTHON := .venv/bin/python
# For the Pythons that continuous integration has; the pins that still fit are kept.
LOCK := .venv/bin/uv pip compile --quiet --no-header --universal --python-version 3.11 \
  --generate-hashes --custom-compile-command "make lock"
MINUTES := 10

.PHONY: help setup check test coverage docs screenshots hooks lock fuzz audit

help:
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## create .venv with everything the tests need
	bash .ci/setup dev

check: setup ## lint, formatting, types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

test: setup ## the whole suite, browser tests included
	$(PYTHON) -m pytest

docs: setup ## redraw and refill what the docs generate, then test the docs
	$(PYTHON) -m scripts.draw_architecture
	$(PYTHON) -m scripts.fill_tables
	$(PYTHON) -m pytest tests/test_docs.py

screenshots: setup ## take README's two pictures of the running page
	$(PYTHON) -m scripts.screenshots

hooks: setup ## run the checks before every commit
	.venv/bin/pre-commit install

coverage: setup ## the suite with coverage
	$(PYTHON) -m pytest --cov

lock: setup ## write the two lock files again, from requirements.txt and pyproject.toml
	$(LOCK) --extra dev pyproject.toml --output-file .ci/requirements-dev.lock
	$(LOCK) --constraint .ci/requirements-dev.lock requirements.txt \
	  --output-file .ci/requirements.lock

fuzz: setup ## mutated files for every reader, for ten minutes: make fuzz MINUTES=60
	$(PYTHON) -m tests.fuzz --minutes $(MINUTES)

audit: setup ## known weaknesses of the code and of the packages in the lock file
	.venv/bin/bandit --quiet --recursive --configfile pyproject.toml xai_demo app.py
	.venv/bin/pip-audit --require-hashes --disable-pip --requirement .ci/requirements.lock
