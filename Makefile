# Everything from a fresh checkout. Each command sets up what it needs in .venv, Arm's toolchains in .venv-arm; PYTHON
# chooses the interpreter.
PYTHON ?= python3
VENV ?= .venv
ARM_VENV ?= .venv-arm
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
EXTRAS := compile,tvm,onnxruntime,jetpack6,video,display,mqtt,serve,report,train,text,test,dev
NATIVE := $(shell find runtimes -name '*.cpp' -o -name '*.h' -o -name '*.hpp' -o -name '*.inc' -o -name '*.cu' -o -name CMakeLists.txt)

.PHONY: help setup demo test check test-npu lint bench parity fuzz clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8

setup: $(VENV)/ready ## a virtual environment with the package, its extras and the known good versions

# PyTorch first and pinned by itself: pip then never looks for a newer build while it resolves the rest.
$(VENV)/ready: pyproject.toml constraints.txt CMakeLists.txt $(NATIVE)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --progress-bar on $(shell grep '^torch==' constraints.txt)
	$(PIP) install --progress-bar on -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

# Without constraints.txt, which Arm's toolchains do not go with (pyproject.toml).
$(ARM_VENV)/ready: pyproject.toml CMakeLists.txt $(NATIVE)
	$(PYTHON) -m venv $(ARM_VENV)
	$(ARM_VENV)/bin/python -m pip install --progress-bar on $(shell grep '^torch==' constraints.txt)
	$(ARM_VENV)/bin/python -m pip install --progress-bar on -e '.[compile,report,ethos-u,vgf,test]'
	touch $@

demo: setup ## build the host bundle and recognise the camera's motion in a sample video
	$(BIN)/python compile/build.py --target host --output build/host
	$(BIN)/python -m vmp_edge.apps.demo --bundle build/host

# The files in the order of tests/support/slow.py, the longest first, so that both workers end at about the same time.
test: setup ## the tests
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

check: lint ## lint, types and the tests that need no compiler, build or emulator, in under three minutes
	$(BIN)/pytest -n 2 --dist loadfile -m 'not slow'

lint: setup ## ruff, clang-format and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	find benchmarks compile runtimes tests -type f -not -path '*/build/*' \
	  \( -name '*.[ch]' -o -name '*.[ch]pp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.inc' \) \
	  -exec $(BIN)/clang-format --dry-run -Werror {} +
	@# mypy sees the package as it is installed, with the sibling folders inside
	@rm -rf build/lint && mkdir -p build/lint/vmp_edge
	@ln -s $(addprefix $(CURDIR)/,$(wildcard vmp_edge/*) calibration compile runtimes apps) build/lint/vmp_edge/
	cd build/lint && $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache -p vmp_edge

bench: setup ## the benchmarks; writes their tables to benchmarks/results
	$(BIN)/python benchmarks/scan.py
	$(BIN)/python benchmarks/scan_tir.py
	$(BIN)/python benchmarks/gemm.py
	$(BIN)/python benchmarks/model.py
	$(BIN)/python benchmarks/embedded.py
	$(BIN)/python benchmarks/startup.py

parity: setup $(ARM_VENV)/ready ## how far each target's bundle is from its source model, with all toolchains
	$(PIP) install -c constraints.txt -e '.[coreml,openvino,qnn]'
	$(BIN)/python benchmarks/parity.py
	$(ARM_VENV)/bin/python benchmarks/parity.py --only arm-vgf
	$(ARM_VENV)/bin/python benchmarks/parity.py --only arm-ethos-u85

ARM_TESTS := tests/npu/test_ethosu.py tests/npu/test_vgf.py
# Tests in an environment, and their rows in the table, there also if some failed.
npu_tests = VMP_EDGE_TEST_NPU=1 $(1)/bin/python -m pytest $(2) --junitxml build/npu.xml || failed=1; \
	$(1)/bin/python benchmarks/npu_tests.py build/npu.xml || failed=1

test-npu: setup $(ARM_VENV)/ready ## the tests of targets with heavy toolchains; writes benchmarks/results/test_npu.md
	$(PIP) install -c constraints.txt -e '.[coreml,openvino,qnn]'
	failed=0; \
	$(call npu_tests,$(VENV),tests/npu $(ARM_TESTS:%=--ignore=%)); \
	$(call npu_tests,$(ARM_VENV),$(ARM_TESTS)); \
	exit $$failed

fuzz: setup ## ten minutes of libFuzzer on what the embedded library reads (needs clang)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/cmake -S tests/embedded/native -B build/fuzz -G Ninja -DVMP_EDGE_FUZZ=ON \
	  -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++
	$(BIN)/cmake --build build/fuzz --target fuzz
	mkdir -p build/fuzz/corpus && cp -n tests/embedded/seeds/* build/fuzz/corpus/
	cd build/fuzz && ./fuzz corpus -max_total_time=600 -max_len=8192 -print_final_stats=1

clean: ## remove what the other commands made
	rm -rf $(VENV) $(ARM_VENV) build .mypy_cache .ruff_cache .pytest_cache
