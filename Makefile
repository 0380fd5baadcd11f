# Everything a newcomer needs: `make demo` and `make test` on a fresh clone; `make test-all` runs the slow tests too.
PYTHON ?= python3
VENV := .venv
BENCH := .venv-bench
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow test-all fuzz mutants lint claims bench docs dist clean
.DELETE_ON_ERROR:

# timm is a peer of the parity tests only; its dependency torchvision has no CPU build and is not needed for them.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt timm
	touch $(STAMP)

# Steps, not seconds: the verdict is the same on a fast machine and on a slow one.
demo: $(STAMP)
	$(BIN)/papertrial look digits
	$(BIN)/papertrial compare mlp_mixer --data digits --seeds 5 --budget 5s --no-worth --out runs/demo
	$(BIN)/papertrial report runs/demo
	@echo
	@echo "next: open runs/demo/report.html in a browser"
	@echo "      papertrial compare YOUR_PAPER --data YOUR_FILE   (source $(VENV)/bin/activate first, or call $(BIN)/papertrial)"

# Compiled files are kept whatever the environment says: each process that tests start would compile the sources anew.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test: $(STAMP)
	$(PYTEST) -m "not slow"

test-slow: $(STAMP)
	$(PYTEST) -m slow

test-all: $(STAMP)
	$(PYTEST)

# Damaged files of all formats, through the commands that read them: make fuzz [INPUTS=400] [SEED=0]
INPUTS ?= 400
SEED ?= 0
fuzz: $(STAMP)
	$(BIN)/python -m tools.fuzz --number $(INPUTS) --seed $(SEED)

# What share of small bugs in a file its tests notice: make mutants FILE=src/papertrial/core/stats.py [N=30]
N ?= 30
mutants: $(STAMP)
	OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 $(BIN)/python -m tools.mutants $(FILE) --number $(N)

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

claims: $(STAMP)
	OMP_WAIT_POLICY=PASSIVE PAPERTRIAL_DATA="$${PAPERTRIAL_DATA:-$(realpath ../shared/data)}" \
	$(BIN)/papertrial check --scale base --jobs 2 --readme README.md; \
	lost=$$?; $(BIN)/papertrial report evidence && exit $$lost

# A venv of its own: the peers would bring hundreds of packages that nothing here needs.
$(BENCH)/.installed: pyproject.toml constraints.txt bench/peers.txt bench/peers-alone.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BENCH)/bin/pip install --quiet --disable-pip-version-check --no-deps -r bench/peers-alone.txt
	$(BENCH)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -r bench/peers.txt
	touch $(BENCH)/.installed

# `make bench ROWS="mlp_mixer rtdl --quick"` races some papers only; see python -m bench --help
bench: $(BENCH)/.installed
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BENCH)/bin/python -m bench $(ROWS)
	$(if $(ROWS),,OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BENCH)/bin/python -m bench.tool)

clean:
	rm -rf $(VENV) $(BENCH) build dist

# Warnings are errors; nothing is fetched from elsewhere when a page is read. `python -m http.server -d build/site` shows it.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 OMP_NUM_THREADS=1 $(BIN)/mkdocs build --strict --quiet

# The release: built, its files counted, its page on the index rendered, and the wheel tried alone in an environment of its own.
dist: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m tools.wheel dist
