# make test: an environment from nothing, the tested versions, the tests.
# An environment that has torch can be named instead: make test ENV=/path/to/env
PYTHON ?= python3
ENV ?= .venv
PIP = $(ENV)/bin/python -m pip install --disable-pip-version-check --quiet -c requirements/tested.txt

.PHONY: test test-slow environment clean

test: environment
	$(ENV)/bin/python -m pytest

test-slow: environment
	$(ENV)/bin/python -m pytest -m slow

environment: $(ENV)/.fedseg_mm

$(ENV)/.fedseg_mm: setup.py requirements/tested.txt
	test -x $(ENV)/bin/python || $(PYTHON) -m venv $(ENV)
	# torch first: a looser range may fetch gigabytes of CUDA packages
	$(ENV)/bin/python -c 'import torch' 2>/dev/null || $(PIP) torch==2.13.0
	# mmcv and mmcv-lite own the same folder: keep the one that is there
	if $(ENV)/bin/python -m pip show --quiet mmcv 2>/dev/null; then $(PIP) -e '.[tests]'; \
	else $(PIP) -e '.[lite,tests]'; fi
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
