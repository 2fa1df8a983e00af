# Everything runs in a virtual environment that the first command makes; what is already done is skipped.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
JOBS ?= 2
DEMO ?=
DATA ?=
STUDIES ?=
LABEL ?=
LABEL_BIN := .venv-label/bin

.PHONY: demo test test-label label label-system lint format benchmark base clean

demo: $(READY)
	@$(BIN)/python -m monai_ext demo --folder runs/demo $(DEMO)

# Each test process gets one thread: more of them than cores only wait for each other.
test: $(READY) $(VENV)/numpy1/.ready
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

# MONAI Label's server on the images in STUDIES=folder, in an environment of its own; LABEL holds further options.
label:
	@test -n "$(STUDIES)" || { echo "make label needs STUDIES=folder, the images to annotate"; exit 2; }
	@$(PYTHON) monai_ext/label/environment.py
	@$(LABEL_BIN)/python -m monai_ext label --studies "$(STUDIES)" $(LABEL)

# What needs MONAI Label itself: a real server on this machine, its clients' requests, and a browser. The tests of the
# rest have settings of their own, which leave these out.
test-label: label-system
	@$(PYTHON) monai_ext/label/environment.py
	@$(LABEL_BIN)/python -c "import playwright, pytest" 2>/dev/null || $(LABEL_BIN)/python -m pip install -q playwright pytest
	@OMP_NUM_THREADS=1 $(LABEL_BIN)/python -m pytest -q -c /dev/null --rootdir=. -p no:cacheprovider tests/label/server $(LABEL)

# A browser for the tests of the page and a DICOM server for those of OHIF: root on Debian or Ubuntu gets them installed.
label-system:
	@missing=""; \
	command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || missing="chromium"; \
	command -v Orthanc >/dev/null || missing="$$missing orthanc orthanc-dicomweb"; \
	test -z "$$missing" && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$missing; \
	else \
		echo "Install $$missing first (Debian, Ubuntu: sudo apt-get install --no-install-recommends $$missing)."; exit 2; \
	fi

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(READY)
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

# Speed and memory; with DATA=folder the table of methods, too, which goes on where it was stopped.
benchmark: $(READY)
	@$(BIN)/python -m tests.benchmarks
	@test -z "$(DATA)" || $(BIN)/python -m tests.benchmarks.methods "$(DATA)"

# The embedded base, trained again: about two and a half hours of two cores; DATA=folder holds its sources.
base: $(READY)
	@test -n "$(DATA)" || { echo "make base needs DATA=folder, see bundles/sam2_micro_pretraining/docs/README.md"; exit 2; }
	@data=$$(realpath "$(DATA)") && PATH="$(CURDIR)/$(BIN):$$PATH" && cd bundles/sam2_micro_pretraining && \
	torchrun --standalone --nproc_per_node=2 -m monai.bundle run training --config_file "['configs/train.json','configs/multi_gpu_train.json']" --dataset_dir "$$data" --batch_size 12 && \
	torchrun --standalone --nproc_per_node=2 -m monai.bundle run training --config_file "['configs/train.json','configs/multi_gpu_train.json','configs/more_vessels.json']" --dataset_dir "$$data" --batch_size 12 --weights models/sam2_micro.safetensors

clean:
	rm -rf $(VENV) .venv-label runs

# torch comes first: sam2 is built against it, without its CUDA extension. sam2 asks for torchvision, which nothing of
# ours needs and which cannot be imported beside a CPU-only torch: then it goes, or libraries that look for it fail.
$(READY): setup.cfg
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Setting up $(VENV) (once, a few minutes) ..."
	@echo "$(TORCH)" > $(VENV)/constraints.txt
	@$(BIN)/pip install -q --disable-pip-version-check "$(TORCH)" setuptools wheel "numpy>=2"
	@SAM2_BUILD_CUDA=0 $(BIN)/pip install -q --disable-pip-version-check --no-build-isolation --no-deps "sam2>=1.1"
	@$(BIN)/pip install -q --disable-pip-version-check --no-build-isolation -c $(VENV)/constraints.txt -e ".[dev]"
	@$(BIN)/python -c "import torchvision" 2>/dev/null || $(BIN)/pip uninstall -qy torchvision 2>/dev/null || true
	@touch $@

# numpy 1.26 beside the environment's numpy 2, for the test that a bundle runs with both.
$(VENV)/numpy1/.ready: $(READY)
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --target $(VENV)/numpy1 "numpy==1.26.4"
	@touch $@
