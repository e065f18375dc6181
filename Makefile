# Everything here works on a fresh Debian machine with Python 3.11 or newer; the environment is .venv.
# `make demo` shows what the project does, `make test` runs every check.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=

.PHONY: help setup demo test check tests serve lock format schema pictures bench soak faults torture docs docs-errors clean

help:  ## List what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): requirements/dev.txt pyproject.toml tools/setup.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" bash tools/setup.sh

setup: $(READY)  ## Make .venv with everything in it

demo: $(READY)  ## Run the demo on real speech, real WebRTC and real processes (ARGS="--json" for scripts)
	@$(BIN)/voicethere demo $(ARGS)

serve: $(READY)  ## Run the whole platform here (ARGS are those of `voicethere up`)
	@$(BIN)/voicethere up $(ARGS)

check: $(READY)  ## Format, lint, types and import layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

tests: $(READY)  ## The tests alone (ARGS are pytest's: then exactly those are run)
	@bash tools/system_packages.sh chromium postgresql redis-server
ifeq ($(strip $(ARGS)),)
	@$(BIN)/pytest -q -n 2 --dist loadfile -m "not alone"
	@$(BIN)/pytest -q -m alone
else
	@$(BIN)/pytest $(ARGS)
endif

test: check tests  ## Every check and every test

format: $(READY)  ## Put the code in order
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

schema: $(READY)  ## Write the JSON Schema of every boundary to build/schema
	@$(BIN)/voicethere schema --out build/schema

pictures: $(READY)  ## Make the pictures of the README and the docs again
	@$(BIN)/python -m tools.chat_pictures docs/images
	@$(BIN)/voicethere demo --svg docs/images/demo.svg

bench: $(READY)  ## Run every benchmark, each with its floor
	@for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

soak: $(READY)  ## Minutes or an hour of steady, mixed traffic: does anything grow? (ARGS="--minutes 60")
	@$(BIN)/python -m tools.soak $(ARGS)

faults: $(READY)  ## Inject every fault into real sessions and show what became known of each (ARGS="--repeat 20")
	@$(BIN)/voicethere faults $(ARGS)

torture: $(READY)  ## Break the whole platform in a seeded order and account for everything (ARGS="--seed 3"; needs root)
	@bash tools/system_packages.sh iproute2 redis-server postgresql
	@$(BIN)/python -m tools.torture $(ARGS)

docs: docs-errors  ## Build the docs site into site/; warnings are errors
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "site/index.html"

docs-errors: $(READY)  ## Write the docs' pages of the error codes again, from the catalog
	@$(BIN)/voicethere errors docs --out docs/errors

lock: $(READY)  ## Pin and hash the requirements again
	@$(BIN)/python -m uv --version >/dev/null 2>&1 || $(BIN)/pip install -q uv
	@$(BIN)/python -m uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header --all-extras --group dev --group docs pyproject.toml -o requirements/dev.txt

clean:  ## Remove what was built
	@rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
