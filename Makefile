# Every target sets up what it needs; nothing is installed outside this folder.
PYTHON  ?= python3.11
DATASET ?= demo
SEED    ?= 0
SCENES  ?= 40
KILLS   ?= 100
NODES   ?= 5
WORLD   := out/demo$(if $(filter-out 0,$(SEED)),-$(SEED))$(if $(filter-out 40,$(SCENES)),-$(SCENES)-scenes)
DATA    ?= $(if $(filter demo,$(DATASET)),$(WORLD))
CACHE   ?= $(if $(filter demo,$(DATASET)),$(WORLD),out/$(DATASET)).zarr
RUN     ?= out/$(basename $(notdir $(CACHE)))-run
# More streets than those of the quick demo need fewer epochs.
CONFIG  ?= $(if $(filter demo,$(DATASET)),$(shell test "$(SCENES)" -gt 40 && echo demo/configs/trainer-full.yaml))
# The table of the demo trains each row for a quarter of the demo's epochs, unless ARGS says otherwise.
FEW_EPOCHS := --set optimiser.epochs=12 --set schedule.stage2_epoch=8
UV_PIN  := uv==0.13.9
BIN     := .venv/bin
PARITY  ?= $(WORLD)
MADE    := out/parity
SEMANTIC_KITTI_API ?= $(MADE)/semantic-kitti-api
SCANNET ?= $(MADE)/ScanNet
# Two processes, a test file in one of them; threads that wait for each other must not keep a core from the others.
PYTEST  := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup labels fit table demo-world demo-labels demo-teachers inspect bench test test-all crashtest check reference parity parity-scores clean

help:
	@echo "make labels [SEED=1] [SCENES=120]    the demo: render street scenes, label them, score the labels"
	@echo "make labels DATASET=nuscenes DATA=<folder> [CACHE=<folder or URL>] [SPLIT=..] [TEACHERS=..] [ARGS='..']"
	@echo "make fit [SCENES=120] [CACHE=..] [RUN=<folder>] [CONFIG=<file>] [ARGS=--resume]"
	@echo "                                     co-train a 2D and a 3D network from a cache, and score them; more than 40"
	@echo "                                     scenes of the demo take the settings of demo/configs/trainer-full.yaml"
	@echo "make table [CACHE=..] [ARGS='--rows baseline,cns']"
	@echo "                                     train and score the rows of the paper's tables; on the demo with few"
	@echo "                                     epochs, unless ARGS are given"
	@echo "make inspect CACHE=<folder or URL>   what is in a cache"
	@echo "make bench [NUSCENES=<folder>]       our code against the obvious ways, on this machine"
	@echo "make test                            the fast tests: no cluster, server or kill, and one whole run"
	@echo "make test-all                        all tests"
	@echo "make crashtest [KILLS=100] [NODES=5] [SEED=1]"
	@echo "                                     kill drivers, actors, workers and nodes at random, and see that nothing is lost"
	@echo "make check                           lint, types, import rules, reference pages, deploy files, tests"
	@echo "make reference                       write docs/reference/settings.md and cli.md from the code"
	@echo "make parity [PARITY=<folder>] [SEMANTIC_KITTI_API=<clone>] [SCANNET=<clone>]"
	@echo "                                     our reading and projection against the official devkit (of the demo by"
	@echo "                                     default), and our scores against three official evaluators"
	@echo "make demo-teachers [ARGS='--effort 0.1']"
	@echo "                                     train the demo's CLIP, SAM and backbone: hours on a CPU; to resume"
	@echo "                                     after an interruption, run it again"
	@echo "make setup | clean                   make or remove the environment"

setup: .venv/.installed

.venv/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(UV_PIN)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -c constraints.txt -e '.[labels,train,demo,dev]'
	@touch $@

labels: setup $(if $(filter demo,$(DATASET)),demo-world)
	@test -n "$(DATA)" || { echo "error: say where the dataset is: make labels DATASET=$(DATASET) DATA=<folder>" >&2; exit 2; }
	@$(BIN)/labelgen run --dataset $(DATASET) --data "$(DATA)" --cache "$(CACHE)" \
	  $(if $(SPLIT),--split $(SPLIT)) $(if $(TEACHERS),--teachers $(TEACHERS)) $(ARGS)
ifeq ($(DATASET),demo)
	@$(BIN)/labelgen inspect "$(CACHE)" --html "$(DATA).html" --pictures "$(DATA)-pictures"
endif

# Makes the labels of the demo if CACHE is to hold them and does not exist.
demo-labels: setup
	@test "$(CACHE)" != "$(WORLD).zarr" -o -e "$(CACHE)/zarr.json" || $(MAKE) labels ARGS=

fit: demo-labels
	@$(BIN)/trainer fit "$(CACHE)" --out "$(RUN)" $(if $(CONFIG),--config "$(CONFIG)") $(ARGS)
	@$(BIN)/trainer evaluate "$(RUN)" "$(CACHE)"

table: demo-labels
	@$(BIN)/trainer table "$(CACHE)" --out "$(basename $(RUN))-table" \
	  $(or $(ARGS),$(if $(filter $(WORLD).zarr,$(CACHE)),$(FEW_EPOCHS)))

demo-world: setup
	@test -e "$(DATA)/v1.0-mini" || $(BIN)/labelgen demo make --out "$(DATA)" --seed $(SEED) --scenes $(SCENES)

demo-teachers: setup
	$(BIN)/python -m demo.teachers.train_clip --out out/demo-clip.safetensors $(ARGS)
	$(BIN)/python -m demo.teachers.train_sam --out out/demo-sam.safetensors $(ARGS)
	$(BIN)/python -m demo.teachers.train_backbone --out out/demo-small.safetensors $(ARGS)

inspect: setup
	@$(BIN)/labelgen inspect "$(CACHE)" $(ARGS)

bench: setup
	@test -e $(WORLD).zarr/zarr.json || $(MAKE) labels ARGS=
	$(BIN)/python -m benchmarks.bench --data $(WORLD) --cache $(WORLD).zarr \
	  $(if $(NUSCENES),--nuscenes $(NUSCENES)) $(ARGS)

test: setup
	$(PYTEST) -m "not (ray or s3 or kill or slow)" $(ARGS)

test-all: setup
	$(PYTEST) $(ARGS)

crashtest: setup
	CRASH_KILLS=$(KILLS) CRASH_NODES=$(NODES) CRASH_SEED=$(SEED) $(BIN)/python -m pytest -s \
	  tests/pipelines/test_crash.py tests/pipelines/test_nodes.py

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m docs.generate_reference --check
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/yamllint --strict -c deploy/.yamllint deploy
	$(BIN)/shellcheck deploy/*.sh
	$(PYTEST) $(ARGS)

reference: setup
	$(BIN)/python -m docs.generate_reference

.venv-parity/.installed: tests/parity/requirements.txt | setup
	$(PYTHON) -m venv --clear .venv-parity
	$(BIN)/uv pip install --quiet --python .venv-parity/bin/python -r tests/parity/requirements.txt
	@touch $@

parity: .venv-parity/.installed $(if $(filter $(WORLD),$(PARITY)),demo-world)
	PYTHONPATH=. .venv-parity/bin/python tests/parity/nuscenes_devkit.py "$(PARITY)"
	$(MAKE) parity-scores

parity-scores: .venv-parity/.installed $(SEMANTIC_KITTI_API) $(SCANNET)
	PYTHONPATH=. $(BIN)/python tests/parity/made_exports.py $(MADE)
	PYTHONPATH=. .venv-parity/bin/python tests/parity/nuscenes_lidarseg.py $(MADE)/nuscenes16
	PYTHONPATH=. $(BIN)/python tests/parity/semantickitti_api.py $(MADE)/semantickitti19 --code "$(SEMANTIC_KITTI_API)"
	PYTHONPATH=. $(BIN)/python tests/parity/scannet_3d.py $(MADE)/scannet20 --code "$(SCANNET)"

$(MADE)/semantic-kitti-api:
	git clone --quiet --depth 1 https://github.com/PRBonn/semantic-kitti-api $@ || { echo \
	  "error: cannot fetch the evaluator; clone it elsewhere, then: make parity SEMANTIC_KITTI_API=<clone>" >&2; exit 2; }

$(MADE)/ScanNet:
	git clone --quiet --depth 1 https://github.com/ScanNet/ScanNet $@ || { echo \
	  "error: cannot fetch the evaluator; clone it elsewhere, then: make parity SCANNET=<clone>" >&2; exit 2; }

clean:
	rm -rf .venv .venv-parity *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
