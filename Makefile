# Each target sets up .venv by itself when it is missing or stale.
PYTHON ?= python3
UV_VERSION := 0.13.8
BIN := .venv/bin
EXTRAS := $(addprefix --extra ,app export render cluster docs dev)
LOCKED := $(filter Linux-x86_64,$(shell uname -sm | tr ' ' '-'))

.PHONY: demo demo-full starter test faults bench wheel docs lint format lock setup clean

demo: setup  ## the whole line on the synthetic corpus, from the shipped stage-1 weights; ends in runs/demo/report.html
	$(BIN)/python demo.py --out runs/demo

demo-full: setup  ## the same with stage 1 trained from nothing
	$(BIN)/python demo.py --from-scratch --out runs/demo-full

starter: setup  ## the starter weights from labelled faces: make starter DATA=FOLDER [MODEL=M.npz] (docs/weights.md says what they hold); hours
	@test -n "$(DATA)" || { echo "make starter DATA=FOLDER: the folder of FER+, muxspace and London faces (docs/weights.md)"; exit 2; }
	$(BIN)/python starter.py --data "$(DATA)" $(if $(MODEL),--model "$(MODEL)")

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

faults: setup  ## tries to break every command and reader (make faults SEED=1); up to 20 minutes, needs no network
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.faults --seed $(or $(SEED),0)

bench: setup  ## what has a goal, two rounds, in one table: make bench [VIDEOS=FOLDER of clips]; up to 40 minutes
	$(BIN)/python -m benchmarks.goals $(if $(VIDEOS),--videos "$(VIDEOS)")

wheel: setup  ## builds the wheel in dist/ and installs and runs it in an empty environment; needs the network, takes minutes
	$(BIN)/python -m tests.wheel --out dist

docs: setup  ## the documentation as a site: build/site/index.html
	$(BIN)/mkdocs build --quiet

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: setup  ## brings requirements.lock up to date with pyproject.toml; versions that still fit stay
	$(BIN)/uv pip compile -q pyproject.toml $(EXTRAS) --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
		--no-header --no-annotate -o requirements.lock

setup: .venv/.ready

# If the stamp is older than the files it was made from, the set-up is done again. The lock holds a complete resolution,
# so uv installs it without resolving; on other platforms uv resolves from pyproject.toml.
.venv/.ready: requirements.lock pyproject.toml
	@rm -f $@
	@test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && $(BIN)/python -m pip install -q uv==$(UV_VERSION); }
ifeq ($(LOCKED),)
	$(BIN)/uv pip install -q --python $(BIN)/python -r pyproject.toml $(EXTRAS) -e .
else
	$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python --no-deps -r requirements.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
endif
	@touch $@

clean:
	rm -rf .venv runs data
