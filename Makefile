# The commands of this project. CI calls the same targets as people do; `make` alone lists them.
#
# Everything Python goes into a virtual environment of its own (.venv), so nothing else needs to be installed than
# Python 3.9 or later, Rust with cargo, and make. Files named .done-* in it remember what is up to date.

PYTHON ?= python3
VENV ?= .venv
HOST ?= 127.0.0.1
PORT ?= 5001
FUZZ_SECONDS ?= 60
CHAOS_SECONDS ?= 300
CHAOS_SCRIPTS ?= serial async joined
SIMULATE_EVENTS ?= 10000000
SIMULATE_SEED ?= 0
BENCH_ROUNDS ?= 5
BENCH_SECONDS ?= 3
# Names of scenarios, separated by commas; all of them if empty.
BENCH_ONLY ?=
# Releases of Python that `make test-all` looks for.
RELEASES ?= 3.9 3.10 3.11 3.12 3.13 3.14 3.14t

BIN := $(VENV)/bin
RUST_SOURCES := Cargo.toml Cargo.lock $(shell find src -name '*.rs')
PYTHON_SOURCES := $(shell find azureml_inference_server_http -name "*.py" -o -name "*.json")
# The build tool, as pyproject.toml wants it.
MATURIN := $(shell sed -n 's/^requires = \["\(.*\)"\]$$/\1/p' pyproject.toml)
EXAMPLE := examples/sklearn
MODEL_DIR := $(EXAMPLE)/models/iris/1
REFERENCE := .venv-reference
BENCH := .bench
PUBLISHED := 1.5.1
LIBPYTHON_FOLDER := import os, sysconfig as s; folder, name = map(s.get_config_var, ("LIBDIR", "LDLIBRARY")); \
	print(folder if name.endswith(".so") and os.path.exists(os.path.join(folder, name)) else "")

# Test processes that run at the same time: three for each core, because tests wait three times as long as they compute.
TEST_PROCESSES ?= $(shell processes=$$(($$(getconf _NPROCESSORS_ONLN) * 3)); echo $$((processes < 24 ? processes : 24)))
PARALLEL = -n $(TEST_PROCESSES) --no-loadscope-reorder
# Systems that this machine cannot run. `make check` compiles for those whose standard library is installed.
FOREIGN_TARGETS := x86_64-pc-windows-gnu aarch64-apple-darwin

# The programs of `make test-kubernetes`, which `make clean` removes.
KUBERNETES := .venv-kubernetes

# The Windows Python of `make test-windows`, which `make clean` removes, and what runs its programs.
WINDOWS := .venv-windows
WINDOWS_TARGET := x86_64-pc-windows-gnu
WINDOWS_PROFILE ?= release
INSTALL_PROFILE ?= release
IN_WINDOWS = $(abspath $(BIN))/python $(CURDIR)/tools/windows_python.py $(abspath $(WINDOWS))

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Lines of "what<TAB>why" about tests and checks that were left out: the table at the end of `make test` and `make ci`.
export NOT_RUN := $(abspath $(VENV)/not-run)
# Names of tests that failed at first and passed when run again alone: the other table there (tools/run_python_tests.py).
export PASSED_ALONE := $(abspath $(VENV)/passed-alone)
# $(call left_out,what,why): says so at once, and again in that table.
left_out = printf '%s\t%s\n' "$(1)" "$(2)" >>$(NOT_RUN); echo "Left out: $(1): $(2)."
# The interpreter that PyO3 builds for; the same for every cargo command, or each would rebuild what the last one built.
export PYO3_PYTHON := $(abspath $(BIN)/python)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve test test-rust test-python check check-rust check-foreign check-fuzz check-python format conform conform-requests \
	conform-telemetry bytecode fuzz chaos simulate soak bench bench-rust \
	test-all test-windows wheels test-install test-generate test-kubernetes test-otlp test-prometheus test-ray test-v2 ci \
	left-out clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "Variables: PYTHON (now $(PYTHON)), VENV ($(VENV)), HOST ($(HOST)) and PORT ($(PORT)) of make serve, FUZZ_SECONDS ($(FUZZ_SECONDS)),"
	@echo "CHAOS_SECONDS ($(CHAOS_SECONDS)), CHAOS_SCRIPTS ($(CHAOS_SCRIPTS)), CHAOS_SEED (a new one each time), BENCH_ROUNDS ($(BENCH_ROUNDS)), BENCH_SECONDS ($(BENCH_SECONDS))"
	@echo "and BENCH_ONLY (scenarios, separated by commas)."

# ---- Running it

serve: $(VENV)/.done-server $(MODEL_DIR)/model.joblib ## Serve the scikit-learn example, and say how to call it
	@printf '\nWhen the server says "ready for serving traffic", type this in another terminal (Ctrl-C here stops it;\n'
	@printf 'if the port is taken, make serve PORT=... takes another):\n'
	@printf '\n  curl -H "Content-Type: application/json" -d "@%s" http://%s:%s/score\n\n' \
		'$(CURDIR)/$(EXAMPLE)/sample-request.json' '$(subst 0.0.0.0,127.0.0.1,$(HOST))' '$(PORT)'
	@exec $(BIN)/azmlinfsrv --entry_script $(EXAMPLE)/score.py --model_dir $(MODEL_DIR) --host $(HOST) --port $(PORT)

$(MODEL_DIR)/model.joblib: $(EXAMPLE)/train.py $(VENV)/.done-example
	$(BIN)/python $(EXAMPLE)/train.py

# ---- Testing it

# pip fills the environment while cargo compiles.
test: ## Run every test but the long ones: the Rust units, then the real command
	$(MAKE) --no-print-directory --jobs 2 $(VENV)/.done-tools test-rust
	$(MAKE) --no-print-directory test-python
	@$(MAKE) --no-print-directory left-out

# With the worker, which needs Python to link, where there is a libpython; without it otherwise. Without MAKEFLAGS, because
# make does not share its job server with cargo, and rustdoc warns of that.
test-rust: $(VENV)/.done-venv
	@folder=$$($(BIN)/python -c '$(LIBPYTHON_FOLDER)'); \
	if [ -n "$$folder" ]; then features=; export LD_LIBRARY_PATH="$$folder"; else features=--no-default-features; \
		$(call left_out,Rust tests of src/worker,$(PYTHON) has no shared libpython); fi; \
	echo "cargo test --locked $$features"; env -u MAKEFLAGS cargo test --locked $$features

# First the tests that may share the machine, in several processes. Then, one at a time, the tests that measure time.
# Of both, the few that fail run once more, alone.
test-python: $(VENV)/.done-tested $(VENV)/.done-tools
	$(BIN)/python tools/run_python_tests.py $(PARALLEL) -m "not serial and not soak"
	$(BIN)/python tools/run_python_tests.py -m "serial and not soak"
	@$(call left_out,Python tests marked soak,they run for minutes: make soak)

check: check-rust check-foreign check-fuzz check-python ## Check format, lints, types and generated pages

check-rust: $(VENV)/.done-venv
	cargo fmt --check
	cargo clippy --locked --all-targets --no-default-features -- -D warnings
	cargo clippy --locked --all-targets -- -D warnings

check-python: $(VENV)/.done-tested $(VENV)/.done-tools
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest azureml_inference_server_http._core
	$(BIN)/python tools/generate_docs.py --check

# Only the library: the benchmarks bring C code, which needs a compiler for the other system. PyO3 does not look for an
# interpreter of that system when it is told a release. Clippy needs no object code, so `true` stands in for the other
# system's C compiler and archiver, which the crate ring would call.
check-foreign: $(VENV)/.done-venv
	@set -e; for target in $(FOREIGN_TARGETS); do \
		if [ -d "$$(rustc --print target-libdir --target $$target)" ]; then \
			echo "cargo clippy --locked --lib --target $$target -- -D warnings"; \
			TARGET_CC=true TARGET_AR=true PYO3_CROSS_PYTHON_VERSION=3.9 cargo clippy --locked --lib --target $$target -- -D warnings; \
		else $(call left_out,cargo clippy for $$target,its standard library is not installed: rustup target add $$target); fi; \
	done

# In the folder of the main build, most of which it shares. To run the targets, see fuzz/Cargo.toml.
check-fuzz:
	cargo clippy --locked --manifest-path fuzz/Cargo.toml --target-dir target --all-targets -- -D warnings

format: $(VENV)/.done-tools ## Format the code and write the generated pages
	cargo fmt
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/python tools/generate_docs.py

conform: conform-requests conform-telemetry ## Compare with the published server

NEEDED_TO_CONFORM = $(VENV)/.done-tested $(VENV)/.done-tools $(REFERENCE)/.done-$(PUBLISHED) bytecode

# So that servers do not compile the package, even if the environment says PYTHONDONTWRITEBYTECODE.
bytecode: $(VENV)/.done-venv
	@$(BIN)/python -m compileall -q azureml_inference_server_http

conform-requests: $(NEEDED_TO_CONFORM)
	$(BIN)/python tests/conformance --reference $(REFERENCE)/bin/python --candidate $(BIN)/python

conform-telemetry: $(NEEDED_TO_CONFORM)
	$(BIN)/python tests/conformance/telemetry --reference $(REFERENCE)/bin/python --candidate $(BIN)/python

fuzz: $(VENV)/.done-tested $(VENV)/.done-tools ## Send made-up requests for FUZZ_SECONDS: compare with Python's json, break HTTP
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

chaos: $(VENV)/.done-tested $(VENV)/.done-tools ## Kill, stop and resize servers under load, CHAOS_SECONDS for each of CHAOS_SCRIPTS
	for scripts in $(CHAOS_SCRIPTS); do \
		$(BIN)/python -m tests.chaos --scripts $$scripts --seconds $(CHAOS_SECONDS) $(CHAOS_SEED:%=--seed %) || exit 1; done

simulate: $(VENV)/.done-venv ## Run the dispatcher's core through SIMULATE_EVENTS events in virtual time, from SIMULATE_SEED on
	SIMULATE_EVENTS=$(SIMULATE_EVENTS) SIMULATE_SEED=$(SIMULATE_SEED) cargo test --locked --no-default-features --release \
		the_invariants_hold_for_millions_of_events -- --ignored --nocapture

soak: $(VENV)/.done-tested $(VENV)/.done-tools chaos fuzz ## Run the long tests: those marked soak, then chaos and fuzz
	$(BIN)/python -m pytest -m soak

# It installs nothing: Prometheus is a package of most systems (apt install prometheus, brew install prometheus).
test-prometheus: $(VENV)/.done-tested $(VENV)/.done-tools ## Let a real Prometheus scrape the server while processes die, check rules and dashboard
	@for tool in prometheus promtool; do command -v $$tool >/dev/null || \
		{ echo "$$tool was not found: install Prometheus with the package manager of the system." >&2; exit 1; }; done
	$(BIN)/python -m pytest tests/e2e/test_prometheus.py -m soak

# Optional packages with programs of their own, which only some systems and Pythons have.
test-otlp: $(VENV)/.done-tested $(VENV)/.done-tools ## Send OTLP to receivers that others have written: oteltap and rotel
	$(BIN)/python -m pip install --quiet oteltap rotel
	$(BIN)/python -m pytest tests/e2e/test_independent_receiver.py -ra

# First what compiles Rust, one cargo command after the other as they lock their folder, while pip fills the environments.
# The server is built after that: PyO3 is compiled differently for it, which costs a minute at each change between the two.
ci: ## Run all that CI runs
	@rm -f $(NOT_RUN) $(PASSED_ALONE)
	$(MAKE) --jobs 3 --output-sync=target $(VENV)/.done-tools $(REFERENCE)/.done-$(PUBLISHED) \
		test-rust check-rust check-foreign check-fuzz
	$(MAKE) test-python
	$(MAKE) --jobs 3 --output-sync=target conform check-python
	@$(MAKE) --no-print-directory left-out

left-out:
	@test ! -s $(NOT_RUN) || { printf '\nWhat did not run, and why:\n'; sort -u $(NOT_RUN) | awk -F '\t' '{ printf "  %-40s %s\n", $$1, $$2 }'; }
	@test ! -s $(PASSED_ALONE) || { printf '\nFailed at first, and passed when run again alone (make each independent of the load):\n'; \
		sed 's/^/  /' $(PASSED_ALONE); }
	@rm -f $(NOT_RUN) $(PASSED_ALONE)

# The image is built from a wheel, as users build theirs. Its root file system is made once and kept.
test-generate: $(VENV)-generate/.done-tools $(VENV)/.done-tested $(VENV)/.done-tools ## Let other programs read the files of `azmlinfsrv generate`, build and run the image
	rm -rf $(VENV)-generate/wheel
	$(BIN)/maturin build --quiet --locked --auditwheel skip --interpreter $(BIN)/python --out $(VENV)-generate/wheel
	GENERATE_TOOLS=$(abspath $(VENV)-generate/bin) GENERATE_WHEELS=$(abspath $(VENV)-generate/wheel) \
		GENERATE_IMAGES=$(abspath $(VENV)-generate/images) $(BIN)/python -m pytest tests/generated tests/unit/generate
	@$(MAKE) --no-print-directory left-out

# Kubernetes is compiled once, in about 7 minutes of processor time, and kept. The pods run the image of test-generate.
test-kubernetes: $(VENV)/.done-tested $(VENV)/.done-tools ## Run the generated manifests on a real cluster: update, kill and evict under load (Debian, root)
	$(BIN)/python tools/build_kubernetes.py $(KUBERNETES)
	rm -rf $(KUBERNETES)/wheel
	$(BIN)/maturin build --quiet --locked --auditwheel skip --interpreter $(BIN)/python --out $(KUBERNETES)/wheel
	KUBERNETES=$(abspath $(KUBERNETES)/bin) GENERATE_WHEELS=$(abspath $(KUBERNETES)/wheel) \
		GENERATE_IMAGES=$(abspath $(VENV)-generate/images) $(BIN)/python -m pytest tests/kubernetes
	@$(MAKE) --no-print-directory left-out

test-v2: $(VENV)-clients/.done-tools $(VENV)/.done-tested $(VENV)/.done-tools ## Let tritonclient and kserve call the server by the Open Inference Protocol
	INFERENCE_CLIENTS=$(abspath $(VENV)-clients/bin) $(BIN)/python -m pytest tests/inference_clients
	@$(MAKE) --no-print-directory left-out

# With Serve's own proxy, then with HAProxy. The package is that of this folder, as it is built for $(VENV).
test-ray: $(VENV)-ray/.done-tools $(VENV)/.done-tested ## Serve scripts on a Ray cluster of three nodes on this machine
	PYTHONPATH=$(CURDIR) nice -n 10 $(VENV)-ray/bin/python -m pytest -W default tests/ray_cluster
	PYTHONPATH=$(CURDIR) RAY_SERVE_ENABLE_HA_PROXY=1 RAY_SERVE_THROUGHPUT_OPTIMIZED=1 nice -n 10 \
		$(VENV)-ray/bin/python -m pytest -W default tests/ray_cluster

test-all: $(RELEASES:%=test-on-%) ## Run the Python tests on every supported Python that is found
	@$(MAKE) --no-print-directory left-out

# One wheel and one environment for each release, so that what is tested is what would be installed.
test-on-%: $(VENV)/.done-build
	@set -e; python=$$($(BIN)/python tools/pythons.py $*) || true; \
	if [ "$${python:-none}" = none ]; then $(call left_out,Python tests on Python $*,no Python $* was found); exit 0; fi; \
	echo "Python $* ($$python):"; \
	rm -rf $(VENV)-$*/wheel; \
	$$python -m venv $(VENV)-$*; \
	$(BIN)/maturin build --release --locked --interpreter $$python --out $(VENV)-$*/wheel; \
	$(VENV)-$*/bin/pip install --quiet --force-reinstall --no-deps $(VENV)-$*/wheel/*.whl; \
	$(VENV)-$*/bin/pip install --quiet azureml-inference-server-http -r tests/requirements.txt; \
	$(VENV)-$*/bin/python tools/run_python_tests.py $(PARALLEL) -m "not serial and not soak" tests/unit tests/e2e; \
	$(VENV)-$*/bin/python tools/run_python_tests.py -m "serial and not soak" tests/unit tests/e2e

# Windows, as far as Wine is Windows: the Rust unit tests, the wheel in a Windows Python, and the tests of the real command
# that worker threads have. tests/windows_tests.py says which are left out, and why.
test-windows: $(VENV)/.done-tools $(VENV)/.done-build ## Test the Windows build under Wine (Debian: gcc-mingw-w64-x86-64, wine64)
	@command -v wine64 >/dev/null || test -x /usr/lib/wine/wine64 || { echo "Wine was not found: apt-get install wine64" >&2; exit 1; }
	@test -d "$$(rustc --print target-libdir --target $(WINDOWS_TARGET))" || \
		{ echo "Rust's library for Windows was not found: rustup target add $(WINDOWS_TARGET)" >&2; exit 1; }
	$(BIN)/python tools/windows_python.py $(WINDOWS)
	env -u MAKEFLAGS CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER='$(IN_WINDOWS)' \
		cargo test --locked --lib --no-default-features --target $(WINDOWS_TARGET)
	rm -rf $(WINDOWS)/wheel
	$(BIN)/python tools/build_wheels.py --out $(WINDOWS)/wheel --system windows --profile $(WINDOWS_PROFILE) --keep \
		--release $$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
	$(IN_WINDOWS) python.exe -m pip install --quiet --no-index --no-deps --force-reinstall $(WINDOWS)/wheel/*.whl
	$(IN_WINDOWS) python.exe tools/try_wheel.py
	TEST_SERVER='$(abspath $(BIN))/python $(CURDIR)/tests/windows_command.py $(abspath $(WINDOWS))' \
		$(BIN)/python tools/run_python_tests.py $(PARALLEL) --timeout 180 -m "not soak" tests/e2e
	@$(MAKE) --no-print-directory left-out

# Wheels for users, and the source distribution. WHEELS has options of tools/build_wheels.py, such as --release 3.11.
wheels: $(VENV)/.done-wheels ## Build the wheels of all systems and releases into dist/, check and try them
	$(BIN)/python tools/build_wheels.py --out dist $(WHEELS)

test-install: $(VENV)/.done-wheels ## Install the wheel over 1.5.1 and back, with uv, with old and new packages
	rm -rf $(VENV)/wheel
	$(BIN)/maturin build --profile $(INSTALL_PROFILE) --locked --interpreter $(BIN)/python --out $(VENV)/wheel
	$(BIN)/python tools/try_install.py $(VENV)/wheel/*.whl

# ---- Measuring it

# The wheel that users would install, not the editable installation.
bench: $(BENCH)/.done-wheel $(BENCH)/.done-tools ## Compare its speed and size with other servers, write docs/performance.md
	$(BENCH)/tools/bin/python -m benchmarks --rounds $(BENCH_ROUNDS) --seconds $(BENCH_SECONDS) \
		$(if $(BENCH_ONLY),--only $(BENCH_ONLY))

bench-rust: $(VENV)/.done-venv ## Microbenchmarks of frames and JSON
	cargo bench --locked --no-default-features --bench frames --bench json_out
	@folder=$$($(BIN)/python -c '$(LIBPYTHON_FOLDER)'); \
	if [ -z "$$folder" ]; then echo "No shared libpython for $(PYTHON): json_in is left out."; exit 0; fi; \
	LD_LIBRARY_PATH="$$folder" cargo bench --locked --bench json_in

# ---- What the targets above need

$(VENV)/.done-venv:
	@command -v cargo >/dev/null || { echo "cargo was not found: install Rust (README.md, Install)." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 9))' || \
		{ echo "$(PYTHON) is not Python 3.9 or later: choose another with make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.done-build: $(VENV)/.done-venv pyproject.toml
	$(BIN)/pip install --quiet '$(MATURIN)'
	@touch $@

$(VENV)/.done-wheels: $(VENV)/.done-build
	$(BIN)/pip install --quiet '$(subst maturin,maturin[zig],$(MATURIN))' auditwheel uv
	@touch $@

# Editable: changes of the Python files count at once, those of the Rust files and of the metadata build again. The two
# builds take each other's place in the environment, so each removes the other's mark.
DEVELOP = env -u CONDA_PREFIX PIP_QUIET=1 VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --locked

# As users would have it, nearly.
$(VENV)/.done-server: $(VENV)/.done-build pyproject.toml $(RUST_SOURCES)
	@test -d target/quick || echo 'Compiling the server, once: 2 to 10 minutes, by the number of cores. Later changes take less.'
	$(DEVELOP) --profile quick
	@rm -f $(VENV)/.done-tested; touch $@

# With debug assertions, and from the dependencies that `cargo test` has compiled (docs/decisions/2026-11-30-tests.md).
$(VENV)/.done-tested: $(VENV)/.done-build pyproject.toml $(RUST_SOURCES)
	$(DEVELOP)
	@rm -f $(VENV)/.done-server; touch $@

$(VENV)/.done-tools: tests/requirements.txt $(VENV)/.done-venv
	$(BIN)/pip install --quiet -r $<
	@touch $@

$(VENV)-generate/.done-tools: tests/requirements-generate.txt
	$(PYTHON) -m venv $(VENV)-generate
	$(VENV)-generate/bin/pip install --quiet -r $<
	@touch $@

$(VENV)-clients/.done-tools: tests/requirements-clients.txt
	$(PYTHON) -m venv $(VENV)-clients
	$(VENV)-clients/bin/pip install --quiet -r $<
	@touch $@

$(VENV)-ray/.done-tools: tests/requirements-ray.txt
	$(PYTHON) -m venv $(VENV)-ray
	$(VENV)-ray/bin/pip install --quiet -r $<
	@touch $@

$(VENV)/.done-example: $(EXAMPLE)/requirements.txt $(VENV)/.done-venv
	$(BIN)/pip install --quiet -r $<
	@touch $@

# The same Python as in $(VENV): the comparison is between servers.
$(REFERENCE)/.done-$(PUBLISHED): $(VENV)/.done-venv
	$(BIN)/python -m venv $(REFERENCE)
	$(REFERENCE)/bin/pip install --quiet azureml-inference-server-http==$(PUBLISHED) numpy pandas scikit-learn pillow
	@touch $@

$(BENCH)/.done-wheel: $(VENV)/.done-build pyproject.toml $(RUST_SOURCES) $(PYTHON_SOURCES)
	rm -rf $(BENCH)/wheel
	$(BIN)/maturin build --release --locked --interpreter $(BIN)/python --out $(BENCH)/wheel
	@touch $@

$(BENCH)/.done-tools: benchmarks/requirements.txt $(VENV)/.done-venv
	$(BIN)/python -m venv $(BENCH)/tools
	$(BENCH)/tools/bin/pip install --quiet -r $<
	@touch $@

clean: ## Remove everything that these targets made
	rm -rf target .venv .venv-* .bench .mypy_cache .pytest_cache .ruff_cache .hypothesis dist $(EXAMPLE)/models
	rm -f azureml_inference_server_http/_core.*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
