# Everything is installed by `make setup`, which every target that needs it calls; it is quick when all is there.
.DEFAULT_GOAL := help
.PHONY: help setup pulumi run down gameday test test-console test-infra test-dags soak fuzz mutations lint docs bench bench-peer

BIN := .venv/bin
# An image may set it. Then each process of a test compiles Beam and Google's clients again: 4 seconds of CPU per process.
unexport PYTHONDONTWRITEBYTECODE
# make run DURATION=120 TPS=50 SEED=1 TABLES=tables.toml DIALECT=postgresql
RUN := $(if $(DURATION),--duration $(DURATION)) $(if $(TPS),--tps $(TPS)) $(if $(SEED),--seed $(SEED)) $(if $(TABLES),--tables $(TABLES)) $(if $(DIALECT),--dialect $(DIALECT))

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install all that the rest needs (once; 2 to 4 minutes where Prism must be built)
	@local/setup.sh

pulumi: ## The Pulumi CLI for the tests: found on PATH, or built (once; about 10 minutes of CPU)
	@local/setup.sh pulumi

run: setup ## Run the whole service here, with traffic: make run [DURATION=seconds] [TPS=50] [SEED=1] [TABLES=file] [DIALECT=postgresql]
	@$(BIN)/audit local run $(RUN)

down: setup ## End what runs in the background (after audit local up)
	@$(BIN)/audit local down

gameday: setup ## Break something, see its alert fire, fix it, lose nothing: make gameday [FAULTS="pipeline-stopped"]
	@local/setup.sh monitoring
	@$(BIN)/audit gameday $(or $(FAULTS),pipeline-stopped)

test: pulumi ## Run all the tests: make test [ARGS="-k search"]
	@local/setup.sh monitoring
	@local/setup.sh browser
	@$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder --ignore tests/dags $(ARGS)

test-console: setup ## Run the tests of the console, in a real Chromium; screenshots in .audit/screenshots
	@local/setup.sh browser
	@$(BIN)/pytest -n 2 tests/unit/test_console_identity.py tests/unit/test_console_parts.py \
		tests/emulators/test_console.py tests/emulators/test_console_browser.py $(ARGS)

test-infra: pulumi ## Run the tests of the stacks: graphs, rules, delivery, and the real Pulumi CLI
	@$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder tests/infra $(ARGS)

test-dags: setup ## Run every DAG on Airflow 2.11 and 3.x, and Argo CD's manifests (installs 3 GB, once)
	@local/setup.sh dags
	@$(BIN)/pytest tests/dags $(ARGS)

soak: setup ## Kill and cut the job at random between strict services, lose nothing: make soak [KILLS=20] [DURATION=120]
	@$(BIN)/python -m tests.strict.soak $(if $(KILLS),--kills $(KILLS)) $(if $(DURATION),--duration $(DURATION)) $(ARGS)

fuzz: setup ## Hide card data in changes, see that none comes out, and harmless values do: make fuzz [N=100000] [SEED=1]
	@$(BIN)/python -m tests.fuzz --hidden $(or $(N),100000) --harmless $(or $(N),100000) --seed $(or $(SEED),1) --jobs 2

mutations: setup ## Break the core in small ways, see a test notice each: make mutations [ARGS="--only pipeline/sink"]
	@local/setup.sh dags
	@$(BIN)/python -m tests.mutations $(ARGS)

lint: setup ## Check style, types and the direction of imports
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

docs: setup ## Write what is generated: docs/iam.md, docs/types.md, what the runbooks share, options and numbers in Pulumi.yaml
	@$(BIN)/python -m components.settings.declared
	@$(BIN)/python -m guardrails.iam
	@$(BIN)/python -m alerts.runbooks
	@$(BIN)/python -m tests.golden

bench: setup ## Measure speed and memory, write docs/speed.md; results in bench/results
	@$(BIN)/python -m bench $(ARGS)

bench-peer: setup ## Build Beam's Java connector, for python -m bench.peer (needs Java 17 and Maven)
	@$(BIN)/python -m bench.peer.program
