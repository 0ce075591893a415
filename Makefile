# make demo: what BackCE does, in minutes on a CPU. make test: the tests. make bench: the speed. make docs:
# the documentation as a site. All start from nothing
# but Python >= 3.10.
# An environment that has torch can be named instead: make demo ENV=/path/to/env
PYTHON ?= python3
ENV ?= .venv
PIP = $(ENV)/bin/python -m pip install --disable-pip-version-check --quiet -c requirements/tested.txt

.PHONY: demo silos test test-slow bench docs environment clean

demo: environment
	$(ENV)/bin/python tools/demo.py

# a server and three sites on this machine, from nothing: the five-minute proof
silos: environment
	$(PIP) -e '.[silos]'
	$(ENV)/bin/python -m fedseg_mm silo demo

test: environment
	$(ENV)/bin/python -m pytest

test-slow: environment
	$(ENV)/bin/python -m pytest -m slow

# figures for docs/performance.md, in benchmarks/results/cpu.json; on a machine that has nothing else to do
bench: environment
	$(ENV)/bin/python benchmarks/run.py

# site/index.html, which opens from disk; a dead link is an error
docs: environment
	$(PIP) -e '.[docs]'
	$(ENV)/bin/python docs/generate.py
	$(ENV)/bin/python -m mkdocs build

environment: $(ENV)/.fedseg_mm

# torch first: a looser range may fetch gigabytes of CUDA packages. mmcv and mmcv-lite own the same folder: the one that
# is there is kept.
$(ENV)/.fedseg_mm: pyproject.toml requirements/tested.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; name it as in: \
	make demo PYTHON=python3.12")'
	@echo "Installing into $(ENV), which takes a minute or more ..."
	@test -x $(ENV)/bin/python || $(PYTHON) -m venv $(ENV)
	@$(ENV)/bin/python -c 'import torch' 2>/dev/null || $(PIP) torch==2.13.0
	@if $(ENV)/bin/python -m pip show --quiet mmcv 2>/dev/null; then $(PIP) -e '.[tests]'; \
	else $(PIP) -e '.[lite,tests]'; fi
	@touch $@

clean:
	rm -rf .venv build dist site *.egg-info
