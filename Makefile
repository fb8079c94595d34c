# Every command that people and CI call. `make` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# The first interpreter that TensorFlow has wheels for and that can make a virtual environment.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo $$python && break; done)
ARGS ?=

DEV := .venv/bin
SERVE := .venv-serve/bin
VERSION_OF_CODE = sed -n 's/^__version__ = "\(.*\)"$$/\1/p' service/__init__.py
DOCKERFILES := $(wildcard docker/*.Dockerfile)
# Material for MkDocs warns of a future MkDocs at each build.
SITE = NO_MKDOCS_2_WARNING=1 $(DEV)/mkdocs build --strict
BEHIND_TLS := docker compose -f docker-compose.yml -f docker-compose.override.yml -f docker/tls.yml
# $(call tests,MARKERS,WORKERS): the selection on all cores, and then, beside nothing else, what of it depends on time. The
# second part runs whatever comes of the first; where ARGS selects nothing in one of them (pytest's 5), the other counts.
define tests
	@result=5; for part in 'not timing' timing; do \
	all_cores='--numprocesses $(2) --dist loadfile'; [ "$$part" != timing ] || all_cores=; \
	run=($(DEV)/python -m pytest $$all_cores -m "$(1) and $$part" $(ARGS)); echo "$${run[*]}"; \
	"$${run[@]}" && code=0 || code=$$?; \
	case $$code in 0) [ $$result -ne 5 ] || result=0 ;; 5) ;; *) result=$$code ;; esac; \
	done; exit $$result
endef
# backports-strenum is for Python before 3.11, and its newest release refuses to be installed with a later one.
LOCK = $(DEV)/uv pip compile --quiet pyproject.toml --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-emit-index-url --no-emit-package openvino-telemetry \
	--no-emit-package backports-strenum --custom-compile-command "make lock"

.PHONY: help
help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: serve
serve: .venv-serve/stamp ## serve models/ on PORT (8000) and HOST (this machine only); needs no TensorFlow
	@exec $(SERVE)/python -m service

.PHONY: train
train: .venv/stamp ## train CIFAR-10 and publish under models/ (ARGS="--help" lists the options)
	@exec $(DEV)/python -m training $(ARGS)

.PHONY: test
test: .venv/stamp .venv-interop/stamp .venv-tracking/stamp ## all tests but those of test-stack; of containers and pages where Docker and Chromium are there
	$(call tests,not stack,auto)

.PHONY: test-stack
test-stack: .venv/stamp .venv-kubernetes/stamp ## the monitored stack, updates under load, the manifests and whole benchmarks; needs Docker (ten minutes)
	$(DEV)/python -m pytest -m stack $(ARGS)

.PHONY: test-fast
test-fast: .venv/stamp ## the tests that take about two minutes together, a training among them; none that starts a service or measures time
	$(DEV)/python -m pytest --numprocesses logical --dist loadfile \
	-m "not slow and not process and not timing and not containers and not stack" $(ARGS)

.PHONY: reliability
reliability: .venv/stamp .venv-fuzz/stamp ## the campaigns of docs/reliability.md, whole (some hours, on a quiet machine), with what they find
	$(DEV)/python -m pytest tests/reliability --whole --write-found $(ARGS)

.PHONY: check
check: .venv/stamp ## format, lint, types, workflows, Dockerfiles, licences, the documents' links, compose files, kustomizations
	$(DEV)/ruff format --check .
	$(DEV)/ruff check .
	$(DEV)/mypy
	$(DEV)/actionlint
	$(DEV)/zizmor --offline --quiet .github
	$(DEV)/hadolint $(DOCKERFILES)
	site=$$(mktemp -d); $(SITE) --site-dir $$site; rm -r $$site
	$(DEV)/pip-licenses --packages $$(sed -n 's/^\([a-z0-9._-]*\)==.*/\1/p' requirements/service-all.txt requirements/trainer.txt requirements/trainer-cpu.txt) >/dev/null
	@if command -v kubectl >/dev/null; then for overlay in docker/kubernetes/overlays/*; do \
	echo kubectl kustomize $$overlay; kubectl kustomize $$overlay >/dev/null; done; \
	else echo "no kubectl here: docker/kubernetes is not checked"; fi
	@if docker compose version >/dev/null 2>&1; then \
	for profile in none $$(docker compose config --profiles); do echo "docker compose --profile $$profile config"; \
	docker compose --profile "$$profile" config --quiet || exit; done; \
	echo docker compose -f docker/tls.yml config; $(BEHIND_TLS) config --quiet; \
	else echo "no Docker Compose here: the Compose files are not checked"; fi
	@if docker stack config --help >/dev/null 2>&1; then echo docker stack config; \
	docker stack config -c docker-compose.yml -c docker/swarm.yml -c docker/swarm-models.yml >/dev/null; \
	else echo "no docker stack config here: docker/swarm.yml is not checked"; fi

.PHONY: format
format: .venv/stamp ## format the code and apply the linter's safe fixes
	$(DEV)/ruff check --fix .
	$(DEV)/ruff format .

.PHONY: protos
protos: .venv-interop/stamp ## make the messages of gRPC anew from service/protocols/grpc/*.proto
	.venv-interop/bin/python -m grpc_tools.protoc --proto_path=. --python_out=. service/protocols/grpc/*.proto

.PHONY: site
site: .venv/stamp ## build the documents into site/, a website that needs no network
	$(SITE)

.PHONY: screenshots
screenshots: .venv/stamp ## take the pictures of the page in docs/images/ anew (needs Chromium)
	$(DEV)/python -m pytest tests/end_to_end/test_screenshots.py --write-screenshots

.PHONY: wheel
wheel: .venv/stamp ## build the package into dist/, with the bundled model in it, and check it
	rm -rf dist
	$(DEV)/python -m hatchling build --directory dist
	$(DEV)/twine check --strict dist/*
	$(DEV)/check-wheel-contents dist/*.whl

.PHONY: bench
bench: .venv/stamp .venv-rivals/stamp ## compare the service with other servers and with the processor (needs wrk)
	$(DEV)/python benchmarks/compare.py $(ARGS)

.PHONY: lock
lock: .venv/stamp ## write requirements/*.txt anew (ARGS=--upgrade takes the newest versions)
	$(LOCK) $(ARGS) --extra service --output-file requirements/service.txt
	$(LOCK) $(ARGS) --extra service --extra grpc --extra sources --extra tracing --output-file requirements/service-all.txt
	$(LOCK) $(ARGS) --extra training --extra sources --extra cuda --output-file requirements/trainer.txt
	$(LOCK) $(ARGS) --extra training --extra sources --extra cpu --output-file requirements/trainer-cpu.txt
	$(LOCK) $(ARGS) --extra service --extra grpc --extra sources --extra tracing --extra training --extra export --extra client --extra cpu --extra dev --output-file requirements/dev.txt
	$(LOCK) $(ARGS) --extra client --output-file requirements/client.txt
	$(LOCK) $(ARGS) --extra interop --output-file requirements/interop.txt
	$(LOCK) $(ARGS) --extra tracking --output-file requirements/tracking.txt
	$(LOCK) $(ARGS) --extra rivals --output-file requirements/rivals.txt
	$(LOCK) $(ARGS) --extra kubernetes --output-file requirements/kubernetes.txt
	$(LOCK) $(ARGS) --extra audit --output-file requirements/audit.txt
	$(LOCK) $(ARGS) --extra fuzz --output-file requirements/fuzz.txt

.PHONY: audit
audit: .venv-audit/stamp ## look the locks up among known vulnerabilities; needs a network
	for lock in service-all trainer trainer-cpu dev; do \
	.venv-audit/bin/pip-audit --strict --disable-pip --require-hashes --requirement requirements/$$lock.txt || exit; done

RULES := docker/kubernetes/components/monitoring

.PHONY: manifests
manifests: ## write the rules of docker/prometheus/ anew as Kubernetes' PrometheusRules
	@for rules in docker/prometheus/*.rules.yml; do name=$$(basename $$rules .rules.yml); { \
	printf '# Made of %s by `make manifests`; change it there.\n' "$$rules"; \
	printf 'apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: darkroom-%s\n' "$$name"; \
	printf '  labels:\n    app.kubernetes.io/name: darkroom\nspec:\n'; sed 's/^\(.\)/  \1/' "$$rules"; \
	} >$(RULES)/$$name.rules.yaml; done

.PHONY: images
images: ## build the container images: the service, the trainer, and the trainer without CUDA
	CREATED=$$(git log -1 --format=%cI) REVISION=$$(git describe --always --dirty --abbrev=12) VERSION=$$($(VERSION_OF_CODE)) \
	docker compose --profile train --profile train-cpu build

.PHONY: release-notes
release-notes: ## print the changelog's section of VERSION, which has to be the code's version
	@code=$$($(VERSION_OF_CODE)); if [ "$${VERSION:-}" != "$$code" ]; then \
	echo "VERSION is '$${VERSION:-}', and __version__ in service/__init__.py is '$$code'; make them the same" >&2; exit 1; fi
	@notes=$$(awk -v heading="## [$$VERSION]" '/^## / {mine = index($$0, heading) == 1; next} mine' CHANGELOG.md); \
	if [ -z "$$notes" ]; then echo "CHANGELOG.md has no section [$$VERSION]" >&2; exit 1; fi; printf '%s\n' "$$notes"

.PHONY: clean
clean: ## remove environments, caches and what was built; models/ and runs/ stay
	rm -rf dist site .venv .venv-serve .venv-client .venv-interop .venv-tracking .venv-rivals .venv-kubernetes .venv-audit .venv-fuzz .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/stamp: requirements/dev.txt
.venv-serve/stamp: requirements/service.txt
.venv-client/stamp: requirements/client.txt
.venv-interop/stamp: requirements/interop.txt
.venv-tracking/stamp: requirements/tracking.txt
.venv-rivals/stamp: requirements/rivals.txt
.venv-kubernetes/stamp: requirements/kubernetes.txt
.venv-audit/stamp: requirements/audit.txt
.venv-fuzz/stamp: requirements/fuzz.txt

# A lock is complete, so pip installs exactly what it lists, and nothing that is missing from it on purpose. The stamp is
# a copy of the lock: a lock that is only newer, as after a checkout, rebuilds nothing.
%/stamp:
	@if cmp -s $< $@; then touch $@; exit; fi; \
	python=$(PYTHON); if [ -z "$$python" ]; then \
	echo "Darkroom needs Python 3.11, 3.12 or 3.13 with the venv module (Debian: apt-get install python3-venv); none was" \
	"found on PATH. Give one with PYTHON=/path/to/python." >&2; exit 1; fi; \
	echo "installing the $$(grep -c == $<) packages of $< into $*/"; \
	rm -rf $*; "$$python" -m venv $*; \
	$*/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps --require-hashes \
	--only-binary :all: -r $<; \
	cp $< $@
