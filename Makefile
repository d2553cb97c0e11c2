# make demo: everything from a fresh machine to pictures. make test: a short test of everything. make bench: ratios to peers.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
RUN := $(BIN)/python -m
DEMO := build/demo
# All tests with a Ray cluster are one process's, so that there is one cluster; of the others each file (tests/conftest.py).
IN_PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadgroup --no-loadscope-reorder
SLOWEST := --durations=40 --durations-min=2

.PHONY: demo test test-all bench chaos soak hosts plans damage corpus storage-faults ceph object-stores epochs every-transform training-digests companions conditioning retraining islands fusion lint types docs clean

$(INSTALLED): pyproject.toml constraints.txt
	@echo "installs into $(VENV); takes some minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[demo,dev]"
	touch $@

# Icons -> WebDataset shards -> one flow expert per band in its own Ray actor -> pictures and report.html.
demo: $(INSTALLED)
	test -d $(DEMO)/images || $(RUN) launch.tools.demo_images icons $(DEMO)/images
	test -d $(DEMO)/shards || $(BIN)/freqgan shards pack $(DEMO)/images $(DEMO)/shards
	$(BIN)/freqgan train demo
	$(BIN)/freqgan generate $(DEMO)/run --count 64 --out $(DEMO)/generated
	@echo "pictures: $(CURDIR)/$(DEMO)/generated/grid.png"
	@echo "report: $(CURDIR)/$(DEMO)/run/report.html"

# Processes of several threads each, on cores that they share, wait for each other's threads most of the time.
test test-all: export OMP_NUM_THREADS := 1
test test-all: export OPENBLAS_NUM_THREADS := 1
test: $(INSTALLED) lint
	$(RUN) pytest $(IN_PARALLEL) $(SLOWEST) -m "not alone and not long"
	nice -n 19 $(BIN)/mypy & types=$$!; \
	$(RUN) pytest $(SLOWEST) -m "alone and not long"; tests=$$?; \
	wait $$types && exit $$tests

# And the tests that take long: rarer faults, and other ways to those of make test.
test-all: test
	$(RUN) pytest $(IN_PARALLEL) -m "long and not alone"
	$(RUN) pytest -m "long and alone"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

# All comparisons, or one: make bench BENCH=transforms
bench: $(INSTALLED)
	$(RUN) tests.benchmarks $(BENCH)

# Whether images show what they are asked for: make conditioning CONDITIONING=captions, or classes, likeness, mixing --run RUN
conditioning: $(INSTALLED)
	$(RUN) tests.campaigns.conditioning $(CONDITIONING)

# Every kind of fault at 20 random moments: right digests and seconds lost, as a table. Some: make chaos CHAOS="--only gcs"
chaos: $(INSTALLED)
	$(RUN) tests.campaigns.chaos $(CHAOS)

# An hour (or so many minutes) of a fault a minute: bytes of the result, and whether memory grows.
soak: $(INSTALLED)
	$(RUN) tests.campaigns.soak $(MINUTES)

# Trains over two hosts (network namespaces, as root) with the link between them down for 30 s, and for ever.
hosts: $(INSTALLED)
	$(RUN) tests.campaigns.hosts

# Plans for 1,000 random inventories of 1 to 1,024 GPUs: how far above a proven bound, and seconds a plan. Takes minutes.
plans: $(INSTALLED)
	$(RUN) tests.campaigns.plans

# 2,000 flipped bits and 2,000 cuts of shards, on a disk and on their way from a real S3 server: all noticed, and mended
# by a clean second fetch. Some: make damage COUNT=100
damage: $(INSTALLED)
	$(RUN) tests.campaigns.damage $(COUNT)

# Every image of a folder decoded here and by Pillow: equal, near, refused and why, or wrong: make corpus CORPUS=<folder>
corpus: $(INSTALLED)
	$(RUN) tests.campaigns.corpus $(CORPUS)

# 60 steps with every transform and every kind of plan: whether it resumes to the same bytes and generates, as a table.
every-transform: $(INSTALLED)
	$(RUN) tests.campaigns.every_transform $(STEPS)

# Whether the arithmetic of training is that of another version: write DIGESTS there, compare with it here.
training-digests: $(INSTALLED)
	$(RUN) tests.campaigns.training_digests $(DIGESTS)

# Every companion alone and blended, for some minutes each: how its own measure and its images moved, as a table.
# make companions COMPANIONS="SHARDS HELD_OUT --minutes 5 --only vae,flow"
companions: $(INSTALLED)
	$(RUN) tests.campaigns.companions $(COMPANIONS)

# A scheduled retraining, killed at 20 random moments of each of three runs on a real S3 server that grows, as a table.
retraining: $(INSTALLED)
	$(RUN) tests.campaigns.retraining $(MOMENTS)

# Components of a run on islands that share a bucket alone: bytes, races, kills, slow links, an hour of faults. As root.
# Some, and shorter: make islands ISLANDS="--only kills,soak --moments 5 --minutes 10"
islands: ceph
	$(RUN) tests.campaigns.islands $(ISLANDS)

# The jointly trained system in workers of Ray Train: ten kills at random moments, and 1, 3, then 2 workers. One: make fusion PART=kills
fusion: $(INSTALLED)
	$(RUN) tests.campaigns.fusion $(PART)

# What comes of every fault between a reader of shards and a real S3 server, as a table.
storage-faults: $(INSTALLED)
	$(RUN) tests.campaigns.storage_faults

# Ceph's programs from Debian's packages, unpacked into build/ceph: nothing is installed. Needs apt.
ceph: $(INSTALLED)
	$(RUN) tests.support.radosgw

# Which object stores are trusted, and a run on a Ceph radosgw: killed, raced, retrained. Short: make object-stores STORES="--kills 1"
object-stores: ceph
	$(RUN) tests.campaigns.object_stores $(STORES)

# Memory of the actor that reads shards over 100 epochs of CIFAR-10. Fewer: make epochs EPOCHS=10
epochs: $(INSTALLED)
	$(RUN) tests.campaigns.epochs $(EPOCHS)

# docs/commands.md and docs/settings.md, from the command line and the settings.
docs: $(INSTALLED)
	$(RUN) launch.tools.reference

clean:
	rm -rf build runs bench.json
