# Two commands to begin with: make demo, make test. Everything they need they install; see scripts/bootstrap.sh.
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
# One test after the other; WORKERS=4: four at a time, since most of them wait for a browser most of the time.
WORKERS = 0
CORE_TESTS := $(addprefix tests/test_,access.py address.py answer.py audit_core.py catalogue.py feed.py file_name.py health.py labels.py learning.py lease.py listing.py login.py machine.py news.py plain_text.py proxying.py rate.py relay_budget.py relay_policy.py retention.py stats.py treatment.py undo.py values.py visit.py webhook.py)

.PHONY: help demo test run check coverage reference docs bench deb deb-test vm-test setup clean

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup ## See it work: two sessions on a simulated WhatsApp Web, one killed, one cleaned
	@$(BIN)/python examples/demo.py $(ARGS)

test: BOOTSTRAP := --tests
test: check ## Lint, types, and all tests, those with a real Chromium too
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

run: setup ## Run the daemon against the real WhatsApp Web, as config.toml says
	@$(BIN)/waguard run $(ARGS)

check: setup ## Lint and types only
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy $(wildcard waguard tests examples bench deb container scripts)

coverage: setup ## What the tests of the tables (waguard/core) leave out of them
	@$(BIN)/coverage run -m pytest -m "not browser" $(CORE_TESTS) $(ARGS)
	@$(BIN)/coverage report

reference: setup ## Make the pages of docs/ that follow from the code anew
	@$(BIN)/python scripts/reference.py $(ARGS)

docs: setup ## Build the documentation into dist/docs; a link that leads nowhere is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet $(ARGS)

bench: setup ## Measure: connect, starting, keeping logins, 300 rounds in a row, what drivers have of the relay, what the control port carries; in short: probes, the fault matrix, false alarms, logouts
	@$(BIN)/python bench/connect.py $(ARGS)
	@$(BIN)/python bench/start.py $(ARGS)
	@$(BIN)/python bench/profile.py $(ARGS)
	@$(BIN)/python bench/soak.py $(ARGS)
	@$(BIN)/python bench/relay.py $(ARGS)
	@$(BIN)/python bench/control.py $(ARGS)
	@$(BIN)/python bench/probes.py --quick $(ARGS)
	@$(BIN)/python bench/faults.py --quick $(ARGS)
	@$(BIN)/python bench/calm.py --quick $(ARGS)
	@$(BIN)/python bench/logouts.py --quick $(ARGS)

deb: setup ## Build a Debian package into dist/
	@$(BIN)/python deb/build.py $(ARGS)

deb-test: setup ## Build it and try it in a systemd of its own: upgraded, gone back, removed, purged
	@WAGUARD_TEST_DEB=1 $(BIN)/python -m pytest tests/test_deb.py $(ARGS)

vm-test: setup ## Try the package on emulated machines, Debian 12 and 13: limits, reboots, a power cut; minutes, as root
	@WAGUARD_TEST_VM=1 $(BIN)/python -m pytest tests/test_debian_vm.py $(ARGS)

setup: ## Install what is missing: Chromium, bubblewrap, .venv
	@scripts/bootstrap.sh $(BOOTSTRAP)

clean: ## Remove .venv, dist and caches; sessions and packages stay
	rm -rf .venv dist *.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
