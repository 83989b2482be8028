# `make run` starts everything on this machine; `make test` runs the tests. README.md says more.
# Options are variables: make run PORT=8123 DATA_DIR=/tmp/x RESERVATION_MINUTES=0.2

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
REQUIREMENTS := requirements.txt offers_project/local/requirements.txt
PYTEST_ARGS ?= -n 2 --dist loadfile

.DEFAULT_GOAL := help
CATALOGUE := offers_project/locale/de/LC_MESSAGES/django
.PHONY: help run test chaos lint typecheck bench bench-admin bench-pages messages clean

help:
	@echo "make run        the whole service on http://127.0.0.1:8000 (PORT=, DATA_DIR=, HOST=, any setting)"
	@echo "make test       the test suite (PYTEST_ARGS=)"
	@echo "make chaos      50 buyers while the parts and Stripe fail, 7 minutes (QUICK=1: one; SEED=)"
	@echo "make bench      the service under load beside its floors, 15 minutes (QUICK=1: only that it runs)"
	@echo "make bench-admin  every admin page with 200,000 purchases, its queries explained (QUICK=1: few)"
	@echo "make bench-pages  how soon a phone shows the first offer on slow 4G (QUICK=1: one round)"
	@echo "make lint       ruff, mypy, and the linter of the OpenAPI document (with Node.js)"
	@echo "make messages   what is to be translated, into the German catalogue, and that one compiled"
	@echo "make clean      delete the virtual environment and caches, keep the data"

# `exec`, so that the supervisor is this make's own child and sees it end.
run: $(STAMP)
	@exec $(BIN)/python manage.py runlocal --end-with-parent $(if $(filter command line,$(origin HOST)),--host "$(HOST)")

test: $(STAMP)
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

chaos: $(STAMP)
	@exec $(BIN)/python -m tests.chaos $(if $(QUICK),--quick) $(if $(SEED),--seed "$(SEED)")

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory typecheck
	@$(BIN)/python -m tests.clients.lint

typecheck: $(STAMP)
	@OFFERS_OFFLINE=1 $(BIN)/mypy # the plugin loads the settings, and has no database

bench: $(STAMP)
	@exec $(BIN)/python -m tests.bench.load $(if $(QUICK),--quick)

bench-admin: $(STAMP)
	@exec $(BIN)/python -m tests.bench $(if $(QUICK),--quick)

bench-pages: $(STAMP)
	@exec $(BIN)/python -m tests.bench.first_card $(if $(QUICK),--quick)

# Needs GNU gettext. Neither lines nor dates are in the file, so only a message changes it; what has
# no translation, or one that is only guessed, is counted and has to be written (tests/test_languages.py).
messages: $(STAMP)
	@LOCAL_RUN=1 OFFERS_OFFLINE=1 $(BIN)/python manage.py makemessages --verbosity 0 -l de \
	  --no-location --no-wrap --no-obsolete -i '.*' -i 'tests/*' -i 'templates/admin/*'
	@grep -v '^"POT-Creation-Date:' $(CATALOGUE).po > $(CATALOGUE).po.new
	@mv $(CATALOGUE).po.new $(CATALOGUE).po
	@msgfmt --check-format --statistics -o $(CATALOGUE).mo $(CATALOGUE).po

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache tests/clients/node_modules

# The stamp comes last, so an interrupted installation is done again; one file newer than the stamp too.
$(STAMP): $(REQUIREMENTS)
	@set -e; \
	python=; \
	for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    python="$$candidate"; break; \
	  fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "Python 3.11 or newer is needed: install it, or name it with make PYTHON=/path/to/python3." >&2; \
	  exit 1; \
	fi; \
	if ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || \
	   ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  echo "Creating $(VENV) with $$python …"; \
	  rm -rf $(VENV); \
	  if ! "$$python" -m venv $(VENV) >$(VENV).log 2>&1; then \
	    cat $(VENV).log >&2; rm -rf $(VENV) $(VENV).log; \
	    echo "$$python can't create a virtual environment (on Debian: apt-get install python3-venv)." >&2; \
	    exit 1; \
	  fi; \
	  rm -f $(VENV).log; \
	fi; \
	echo "Installing the requirements into $(VENV) (about half a minute, once) …"; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input \
	  -r offers_project/local/requirements.txt; \
	touch $@
