# `make demo` and `make test` are all a newcomer needs; `make quick` is for who
# changes the code.
PYTHON ?= python3
RUNS ?= runs

.PHONY: demo test quick check clean

# Made anew when the declared packages change; half an installation is none.
.venv/installed: pyproject.toml constraints.txt
	rm -f $@
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# The figures of README.md are those of a CPU.
demo: export JAX_PLATFORMS := $(or $(JAX_PLATFORMS),cpu)
demo: .venv/installed
	.venv/bin/byol train --config=configs/byol_digits.py --workdir=$(RUNS)/digits
	.venv/bin/byol evaluate --config=configs/few_label.py:baselines=1 --encoder=$(RUNS)/digits --workdir=$(RUNS)/digits-few-label

# Three at a time keep two cores busy, because some wait for what they started.
test: .venv/installed
	.venv/bin/python -m pytest -n 3 --dist loadgroup

quick: .venv/installed
	.venv/bin/python -m pytest -n 3 --dist loadgroup -m "not slow"

check: .venv/installed
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/python -m pytest tests/test_layering.py tests/test_tidiness.py

clean:
	rm -rf .venv $(RUNS) .pytest_cache .ruff_cache .mypy_cache
