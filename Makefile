# make demo   a first run: installs, then fine-tunes a network on drawn faces
# make test   installs, then runs the tests
# make quick  installs, then runs the quick half of them
# make next   the same with the newest Python, and so the newest JAX: a minute of tests
# make lint   style and types
# make docs   builds the documentation site in build/site
# make bench  installs PyTorch too, then times jaxvision beside it: takes long;
#             make bench BENCH=--quick has fewer rounds

PYTHON ?= python3
# What is installed beside the package; `.ci/run` adds the originals to compare with.
EXTRAS ?= dev
VENV := .venv
RUN := $(VENV)/bin/python
comma := ,
STAMP := $(VENV)/installed-$(subst $(comma),-,$(EXTRAS))

# Large pages for large arrays: a third less processor time in a training step here. It
# must be set before Python starts; an allocator other than glibc's ignores it.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: demo test quick next lint docs bench install clean

demo: $(STAMP)
	$(VENV)/bin/jaxvision finetune --image-size 128 --epochs 4

# Side by side, since most of the time is compiling, which takes one core.
test: $(STAMP)
	$(RUN) -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# What a new version of JAX, Flax, Orbax or Grain would break, in minutes.
QUICK := tests/models tests/ops tests/pretrained tests/test_*.py \
  tests/training/test_checkpoint.py tests/training/test_step.py \
  tests/training/test_sweep.py tests/data/test_loader.py

quick: $(STAMP)
	$(RUN) -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(QUICK)

# What stands directly on JAX, Flax, Orbax and Grain.
NEXT := tests/test_traces.py tests/models/test_layers.py \
  tests/pretrained/test_convert.py tests/training/test_step.py \
  tests/training/test_checkpoint.py tests/data/test_loader.py

next:
	$(MAKE) --no-print-directory quick VENV=.venv-3.13 PYTHON=python3.13 \
	  EXTRAS=test,classics,safetensors QUICK='$(NEXT)'

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright

docs:
	$(MAKE) --no-print-directory EXTRAS=docs install
	$(VENV)/bin/mkdocs build --strict --quiet

bench:
	$(MAKE) --no-print-directory EXTRAS=test,parity install
	$(RUN) -m benchmarks $(BENCH)

install: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
	touch $@

clean:
	rm -rf $(VENV)
