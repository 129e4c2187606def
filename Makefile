# The two commands: `make book` and `make test`. Each sets up what it needs in .venv first.

PYTHON ?= python3
# Set TORCH_INDEX to an index of PyTorch builds (…/whl/cpu, …/whl/cu126) to take PyTorch from there.
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
READY := $(VENV)/.ready
# What marks coursework: nbgrader in an environment of its own, and where the course is written.
MARKER := $(VENV)-coursework
COURSE ?= _build/coursework
MARKER_BIN := $(MARKER)/$(notdir $(BIN))
# What plants faults in the code: cosmic-ray, in an environment of its own, too.
MUTATOR := $(VENV)-mutants
MUTATOR_BIN := $(MUTATOR)/$(notdir $(BIN))
SITE := -c "import sysconfig; print(sysconfig.get_path('purelib'))"

# Pages run in their own folders, so a relative path would not be found from there.
ifdef FRAMEPRED_DATA
override FRAMEPRED_DATA := $(shell $(PYTHON) -c "import os, sys; print(os.path.abspath(sys.argv[1]))" "$(FRAMEPRED_DATA)")
export FRAMEPRED_DATA
endif
# Files are UTF-8, on Windows too.
export PYTHONUTF8 := 1

.PHONY: help env book serve pdf train evaluate report throughput campaign test slow bench speedrun mutants lint links pairs exercises coursework registry runs-page readme lock clean

help:
	@echo "make book   build the book: _build/html/index.html"
	@echo "make serve  build it and show it at http://localhost:8000"
	@echo "make pdf    print it: _build/pdf/framepred.pdf (needs a Chromium)"
	@echo "make train NETWORK=convlstm ARGS=\"-p preset tiny -p steps 20\"   train in a notebook; again to go on"
	@echo "make evaluate ARGS=\"-p run runs/convlstm-tiny\"   score a run"
	@echo "make report ARGS=\"-p run runs/convlstm-tiny\"   all of Chapter 4 for it: tables, figures, players"
	@echo "make throughput  measure how fast this machine trains, generates and draws"
	@echo "make campaign MINUTES=15   train, score and publish what fits into the minutes; again to go on"
	@echo "make test   run the tests (under five minutes)"
	@echo "make slow   run the slow tests;  make bench: the benchmarks"
	@echo "make speedrun   how long a ConvLSTM takes to the error of the thesis: many minutes, with MNIST"
	@echo "make mutants ARGS=metrics   plant small faults in a module and see whether the tests notice (all: five hours)"
	@echo "make lint   check style, types, spelling, and what is made from something else"
	@echo "make links  ask every address that the book links whether it is there (needs a network)"
	@echo "make pairs  bring the notebooks up to date with the pages"
	@echo "make exercises   make the students' notebooks from the solutions"
	@echo "make coursework  an nbgrader course for instructors: _build/coursework"
	@echo "make registry  list the published runs' files, after a run in book/runs changed"
	@echo "make runs-page the page of runs: a section for each, after a run in book/runs came or went"
	@echo "make readme    the README's table and picture, after a run in book/runs changed"
	@echo "make lock   choose new versions of everything"
	@echo "make clean  remove what was built (not .venv)"

env: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	  { echo "framepred needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
ifdef TORCH_INDEX
	$(BIN)/python -m pip install --quiet --index-url $(TORCH_INDEX) $(shell grep "^torch==" requirements.lock)
endif
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps -e .
	@touch $(READY)

book: env
	$(BIN)/python book/build.py

serve: book
	$(BIN)/python -m http.server 8000 --directory _build/html

pdf: env
	$(BIN)/python book/pdf.py

train: env
	$(BIN)/python book/train.py $(NETWORK) $(ARGS) || test $$? -eq 75

evaluate: env
	$(BIN)/python book/train.py evaluate $(ARGS)

report: env
	$(BIN)/python book/train.py report $(ARGS)

throughput: env
	$(BIN)/python book/train.py throughput $(ARGS)

# Its exit code 75, more to do, is no error.
campaign: env
	$(BIN)/python book/campaign.py --minutes $(or $(MINUTES),15) $(ARGS) || test $$? -eq 75

test: env
	$(BIN)/python -m pytest -q --ignore=tests/benchmarks -m "not slow"

slow: env
	$(BIN)/python -m pytest -q --ignore=tests/benchmarks -m slow

bench: env
	$(BIN)/python -m pytest -q -s -m "not by_hand" tests/benchmarks

speedrun: env
	$(BIN)/python -m pytest -q -s -m by_hand tests/benchmarks

mutants: $(MUTATOR)/.ready
	$(MUTATOR_BIN)/python .ci/mutants.py $(ARGS)

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/python book/pairs.py --check
	$(BIN)/python book/coursework.py --check
	$(BIN)/python book/runs_page.py --check
	$(BIN)/python book/readme.py --check
	$(BIN)/python book/address.py --check
	$(BIN)/python book/campaign.py --render --check

links: env
	$(BIN)/python book/build.py --builder linkcheck

pairs: env
	$(BIN)/python book/pairs.py

exercises: pairs
	$(BIN)/python book/coursework.py

# nbgrader is not part of the book: it has an environment of its own.
coursework: $(MARKER)/.ready
	$(MARKER_BIN)/python book/coursework.py --release $(COURSE)

# An environment $(1) of its own, which sees the book's packages and adds those of the extra $(2).
define beside
$(BIN)/python -m venv $(1)
@echo "import site; site.addsitedir(r'$$($(BIN)/python $(SITE))')" > "$$($(1)/$(notdir $(BIN))/python $(SITE))/book.pth"
$(1)/$(notdir $(BIN))/python -m pip install --quiet --constraint requirements.lock "$$($(BIN)/python -c \
  "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['$(2)'])")"
@touch $@
endef

$(MARKER)/.ready: $(READY)
	$(call beside,$(MARKER),coursework)

$(MUTATOR)/.ready: $(READY)
	$(call beside,$(MUTATOR),mutants)

registry: env
	$(BIN)/python -c "from framepred.runs.published import write_registry; write_registry()"

runs-page: env
	$(BIN)/python book/runs_page.py

readme: env
	$(BIN)/python book/readme.py

lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet uv
	$(VENV)-lock/bin/python .ci/lock.py $(VENV)-lock/bin/uv
	rm -rf $(VENV)-lock

clean:
	rm -rf _build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -not -path "./$(VENV)/*" -prune -exec rm -rf {} +
