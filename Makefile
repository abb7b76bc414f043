# Everything a newcomer types. PyTorch and MuJoCo come in the versions that were tested (constraints.txt).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ORL := $(BIN)/offline-robust
RUNS := runs/quickstart

.PHONY: quickstart test robotics lint bench clean

$(VENV)/core: pyproject.toml constraints.txt
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/dev: $(VENV)/core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,d3rlpy,wandb,ray]'
	@touch $@

# SAC and DR-SAC, two seeds each, one process a core, then one report of all four. What is finished is kept.
quickstart: $(VENV)/core
	@for learner in sac dr_sac; do \
		echo "training $$learner, seeds 0 and 1"; \
		$(ORL) train $$learner/pendulum --seed 0 --out $(RUNS)/$$learner-0 --resume & first=$$!; \
		$(ORL) train $$learner/pendulum --seed 1 --out $(RUNS)/$$learner-1 --resume --quiet && wait $$first || exit 1; \
	done
	@$(ORL) compare $(RUNS)/dr_sac-0 $(RUNS)/dr_sac-1 $(RUNS)/sac-0 $(RUNS)/sac-1 --out $(RUNS) \
		--title "DR-SAC and SAC on a pendulum under another gravity"

test: lint
	$(BIN)/python -m pytest -n 2

# Adroit and the maze tasks. gymnasium-robotics and d3rlpy need different versions of Gymnasium.
robotics:
	@test -d $(VENV)-robotics || $(PYTHON) -m venv $(VENV)-robotics
	$(VENV)-robotics/bin/python -m pip install --quiet --disable-pip-version-check \
		torch==2.13.0 mujoco==3.17.0 pytest hypothesis 'minari[create,hdf5]==0.5.4' -e '.[robotics]'
	$(VENV)-robotics/bin/python -m pytest tests/robotics

lint: $(VENV)/dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports
	$(BIN)/python docs/figures/configuration.py --check
	$(BIN)/python docs/figures/parameters.py --check

bench: $(VENV)/dev
	$(ORL) bench

clean:
	rm -rf $(VENV) $(VENV)-robotics build dist
