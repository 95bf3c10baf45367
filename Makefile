# The verbs of this house; `make` alone lists them. Each sets up what it needs, once, in an environment of its own.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test lint format model calibration trials gallery bench jetson clean
SHELL := /bin/bash

help:
	@echo "make demo     render a place and a flight over it, find the flight on the map: runs/demo/report.html"
	@echo "make test     run the tests (CPU torch); ARGS='-k match' chooses"
	@echo "make lint     ruff, mypy and the rules of who may import whom"
	@echo "make format   ruff's format and its safe fixes"
	@echo "make trials   find real photos and real dates of ground on maps (needs ../shared/data)"
	@echo "make gallery  recall over a gallery of 2,000 tiles, views of another year (needs ../shared/data)"
	@echo "make bench    measure this machine: stages, models, memory; ARGS='--map MAP' (else 25 km2 are drawn),"
	@echo "              ARGS='--frames 5000' to see whether memory grows"
	@echo "make model    train, export, quantize and calibrate the shipped model again (hours on a CPU)"
	@echo "make calibration   only that of runs/model, on the places held back from training"
	@echo "make jetson   set up the Jetson that this runs on; ARGS=--dry-run only says what would be done"
	@echo "make clean    remove environments and runs"

# ---- environments

# The first Python that fits and really starts; PYTHON=/path/to/python chooses another.
VERSION_FITS := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for python in python3.12 python3.11 python3.10 python3; do \
	if $$python -c '$(VERSION_FITS)' >/dev/null 2>&1; then echo $$python; break; fi; done)
DEMO := .venv-demo
TEST := .venv-test
PIP_INSTALL := -m pip install --disable-pip-version-check

# A Debian without python3-venv makes environments without pip only; a pip of its own can still fill one.
define make_environment
	@$(or $(PYTHON),false) -c '$(VERSION_FITS)' >/dev/null 2>&1 || { \
		echo "pilotage: no Python to use: '$(PYTHON)'; expected 3.10 to 3.12; install one (sudo apt install python3" \
		"python3-venv) or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; exit 2; }
	@echo "setting up $(1) with $$($(PYTHON) --version)"
	@rm -rf $(1)
	@{ $(PYTHON) -m venv $(1) || { rm -rf $(1) && $(PYTHON) -m venv --without-pip $(1) && \
		$(PYTHON) -m pip --python $(1)/bin/python install --quiet pip; }; } >/dev/null 2>&1 || { rm -rf $(1); \
		echo "pilotage: $(PYTHON) cannot make a virtual environment; expected its modules venv and ensurepip;" \
		"sudo apt install python3-venv, then make $(MAKECMDGOALS) again" >&2; exit 2; }
endef

$(DEMO)/.made $(TEST)/.made:
	$(call make_environment,$(@D))
	@touch $@

$(DEMO)/.installed: pyproject.toml | $(DEMO)/.made
	$(DEMO)/bin/python $(PIP_INSTALL) -e '.[desktop]'
	@touch $@

# Named exactly and together with all else, so that no resolver goes looking for gigabytes of CUDA. Where pip's index
# offers only CUDA builds, point PIP_EXTRA_INDEX_URL at an index of CPU wheels.
TORCH := torch==2.13.0

$(TEST)/.installed: pyproject.toml | $(TEST)/.made
	$(TEST)/bin/python $(PIP_INSTALL) $(TORCH) -e '.[dev]'
	@touch $@

# ---- the demo: four commands of the program, as a user types them. Ground and flight are kept for the next time.

RUN := runs/demo
PILOTAGE := $(DEMO)/bin/pilotage
RENDERER := $(wildcard training/renderer/*.py)
# 14550 is where ground stations listen; where one does, another port.
FREE_PORT = $(shell for port in 14550 14560 14570 14580 14590; do if $(DEMO)/bin/python -c 'import socket, sys; \
	socket.socket(type=socket.SOCK_DGRAM).bind(("127.0.0.1", int(sys.argv[1])))' $$port 2>/dev/null; \
	then echo $$port; break; fi; done)

$(RUN)/place/place.json: $(RENDERER) | $(DEMO)/.installed
	$(PILOTAGE) render place --out $(RUN)/place --seed 7
	@touch $@

$(RUN)/flight/metadata.yaml: $(RUN)/place/place.json
	$(PILOTAGE) render flight $(RUN)/place --out $(RUN)/flight --seed 7 --season autumn
	@touch $@

demo: $(DEMO)/.installed $(RUN)/flight/metadata.yaml
	$(PILOTAGE) map build $(RUN)/place/orthophoto.tif --dem $(RUN)/place/terrain.tif --out $(RUN)/map --force
	$(PILOTAGE) replay $(RUN)/flight --map $(RUN)/map --out $(RUN) --mavlink udpout:127.0.0.1:$(FREE_PORT) --listener

# ---- what holds the house together

DATA ?= ../shared/data

test: $(TEST)/.installed
	@if [ -d ../shared/data ]; then echo "real imagery and flights: ../shared/data"; \
		else echo "real imagery and flights: none at ../shared/data, tests on them are skipped"; fi
	$(TEST)/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(ARGS)

lint: $(TEST)/.installed
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/mypy
	$(TEST)/bin/lint-imports

format: $(TEST)/.installed
	$(TEST)/bin/ruff check --fix .
	$(TEST)/bin/ruff format .

# ---- the shipped model, from imagery to onboard/models. An interrupted training continues.

MODEL := runs/model
STEPS ?= 9000
MORE_STEPS ?= 1900
LEARN := $(TEST)/bin/pilotage
# Calibrated on the places held back from training (each seventh): one year's views over another year's map, and over
# the map of another city, where nothing is right. And on rendered ground in another season: SEED:SEASON:SUN:HEIGHT OF IT.
# Attitudes are exact: what their errors do to a fix is added by height and --tilt-sigma-deg.
RENDERED := 501:winter:130:30 502:spring:215:45
CALIBRATE := riverside:2016:2020:chico long_beach:2018:2016:riverside chico:2018:2020:long_beach
CALIBRATED := NAIP places held back from training (riverside 2020 over 2016, long_beach 2016 over 2018, chico 2020 over 2018, each also \
over another city where nothing is right) and two rendered places in winter and spring, each also over the other
FOOTPRINTS := 90:70:10 70:53:11 45:35:12

runs/rendered/.done: | $(TEST)/.installed
	$(TEST)/bin/python -m training.data.rendered --out runs/rendered --places 24 --views 45
	@touch $@

# A small network first; a larger one begins with the weights of its INT8 file.
model: $(TEST)/.installed runs/rendered/.done
	$(LEARN) train --data $(DATA) --rendered runs/rendered --out runs/small --steps $(STEPS)
	$(LEARN) export onnx runs/small/checkpoint.pt --out $(MODEL)/small.onnx
	$(LEARN) export quantize $(MODEL)/small.onnx --data $(DATA) --out $(MODEL)/small.int8.onnx
	$(LEARN) export checkpoint $(MODEL)/small.int8.onnx --out runs/start.pt
	$(LEARN) train --start runs/start.pt --size large --data $(DATA) --rendered runs/rendered --out runs/train --steps $(MORE_STEPS)
	$(LEARN) export onnx runs/train/checkpoint.pt --out $(MODEL)/overhead.onnx
	$(LEARN) export quantize $(MODEL)/overhead.onnx --data $(DATA) --out $(MODEL)/jointly.int8.onnx
	$(LEARN) train descriptor --model $(MODEL)/jointly.int8.onnx --data $(DATA) --out runs/descriptor
	$(LEARN) export descriptor runs/descriptor/head.pt --onto $(MODEL)/jointly.int8.onnx --data $(DATA) --out $(MODEL)/overhead.int8.onnx
	$(MAKE) calibration

part = $(word $(1),$(subst :, ,$(2)))

calibration: $(TEST)/.installed
	@set -e; for trial in $(CALIBRATE); do IFS=: read city map view _ <<< "$$trial"; \
		$(LEARN) map build $(DATA)/naip/$$city/*_$$map.tif --model $(MODEL)/overhead.int8.onnx --out $(MODEL)/$$city --force; \
		for shot in $(FOOTPRINTS); do IFS=: read across along seed <<< "$$shot"; \
			$(LEARN) trial views $(DATA)/naip/$$city/*_$$view.tif --every 7 --footprint-m $$across $$along --seed $$seed \
				--out $(MODEL)/views_$${city}_$$seed; done; done
	@set -e; for trial in $(RENDERED); do IFS=: read seed season azimuth elevation <<< "$$trial"; \
		$(LEARN) render place --seed $$seed --out $(MODEL)/place_$$seed; \
		$(LEARN) render flight $(MODEL)/place_$$seed --out $(MODEL)/flight_$$seed --seed $$seed --season $$season \
			--sun-azimuth-deg $$azimuth --sun-elevation-deg $$elevation --seconds 140 --frames-per-second 0.5 --attitude-noise-deg 0; \
		$(LEARN) map build $(MODEL)/place_$$seed/orthophoto.tif --model $(MODEL)/overhead.int8.onnx --out $(MODEL)/map_$$seed --force; done
	$(LEARN) calibrate confidence --model $(MODEL)/overhead.int8.onnx --out $(MODEL)/overhead.confidence.json --source "$(CALIBRATED)" \
		$(foreach trial,$(RENDERED),$(foreach other,$(RENDERED),\
		$(MODEL)/flight_$(call part,1,$(trial))=$(MODEL)/map_$(call part,1,$(other)))) \
		$(foreach trial,$(CALIBRATE),$(foreach shot,$(FOOTPRINTS),$(foreach over,1 4,\
		$(MODEL)/views_$(call part,1,$(trial))_$(call part,3,$(shot))=$(MODEL)/$(call part,$(over),$(trial)))))
	@echo "to ship it: cp $(MODEL)/overhead.int8.onnx $(MODEL)/overhead.confidence.json onboard/models/"

# ---- trials on real ground: how many are found, how many are wrong, and the classical baselines beside them

TRIALS := runs/trials
FLIGHTS := garfield chia brighton
VIEWS := 2020 2018 oblique leaning elsewhere

trials: $(TEST)/.installed
	@set -e; mkdir -p $(TRIALS); for flight in $(FLIGHTS); do \
		$(LEARN) trial beside $(DATA)/namie/orthophoto_2017.tif $(DATA)/flights/$$flight/reference.tif --out $(TRIALS)/$$flight.tif; \
		$(LEARN) map build $(TRIALS)/$$flight.tif $(DATA)/flights/$$flight/reference.tif --out $(TRIALS)/map_$$flight --force; \
		$(LEARN) replay $(DATA)/flights/$$flight --map $(TRIALS)/map_$$flight --independent --out $(TRIALS)/$$flight; \
		for by in gradient sift; do $(LEARN) trial baseline $(DATA)/flights/$$flight --map $(TRIALS)/map_$$flight --by $$by; done; done
	$(LEARN) map build $(DATA)/naip/claremont/*_2016.tif --out $(TRIALS)/map_claremont --force
	$(LEARN) trial views $(DATA)/naip/claremont/*_2020.tif --mapped 2016 --out $(TRIALS)/views_2020
	$(LEARN) trial views $(DATA)/naip/claremont/*_2018.tif --mapped 2016 --out $(TRIALS)/views_2018
	$(LEARN) trial views $(DATA)/naip/claremont/*_2020.tif --mapped 2016 --out $(TRIALS)/views_oblique \
		--tilt-deg 30 --footprint-m 60 46 --offset-m 8
	$(LEARN) trial views $(DATA)/naip/claremont/*_2020.tif --mapped 2016 --out $(TRIALS)/views_leaning --attitude-error-deg 1
	$(LEARN) trial views $(DATA)/naip/bishop/*.tif $(DATA)/naip/eureka/*.tif \
		$(wordlist 1,60,$(sort $(wildcard $(DATA)/naip/riverside/*_2020.tif))) --out $(TRIALS)/views_elsewhere
	@set -e; for views in $(VIEWS); do \
		$(LEARN) replay $(TRIALS)/views_$$views --map $(TRIALS)/map_claremont --independent --out $(TRIALS)/$$views; done
	@set -e; for views in 2020 2018; do for by in gradient sift; do \
		$(LEARN) trial baseline $(TRIALS)/views_$$views --map $(TRIALS)/map_claremont --by $$by; done; done
	$(LEARN) trial table $(FLIGHTS:%=$(TRIALS)/%) $(VIEWS:%=$(TRIALS)/%)

# ---- recall over a large gallery: Claremont's views of another year among the chips of six cities. VIEWED:MAPPED:ACROSS:
# ALONG:OFFSET of the middle, metres. 120 by 90 is the largest view that a chip holds at any heading, 60 by 45 its quarter; 45
# by 35 is that of 90 by 70. A map of 2016+2018 is one of two dates.

GALLERY := $(TRIALS)/gallery
OTHERS := riverside-*_2016 long_beach-*_2016 chico-*_2018 bishop-*_2020 eureka-*_2020
LATER := riverside-*_2018 long_beach-*_2018 chico-*_2020
MAPPED := 2016 2018 2016+2018 2016+2020
SEEN := $(foreach years,2020:2016 2018:2016 2020:2018 2020:2016+2018 2018:2016+2020,$(foreach shot,120:90:2 90:70:18 \
	60:45:18 45:35:18,$(years):$(shot)))

gallery: $(TEST)/.installed
	$(LEARN) trial gather $(wildcard $(DATA)/naip/*/*.tif) --out $(GALLERY)/chips
	@set -e; cd $(GALLERY)/chips; for years in $(MAPPED); do IFS=+ read own other <<< "$$years"; \
		rm -rf ../other; mkdir ../other; \
		if [ "$$other" ]; then for chip in claremont-*_$$other.tif $(LATER:%=%.tif); do ln -s ../chips/$$chip ../other/; done; fi; \
		$(abspath $(LEARN)) map build claremont-*_$$own.tif $(OTHERS:%=%.tif) $${other:+--other-date ../other} \
			--out ../map_$$years --force; done
	@set -e; for shot in $(SEEN); do IFS=: read seen years across along offset <<< "$$shot"; \
		name=$${seen}_over_$${years}_$$across; views=$(GALLERY)/views_$$name; map=$(GALLERY)/map_$$years; \
		$(LEARN) trial views $(GALLERY)/chips/claremont-*_$$seen.tif --mapped $${years%+*} --footprint-m $$across $$along \
			--offset-m $$offset --out $$views; \
		$(LEARN) replay $$views --map $$map --independent --out $(GALLERY)/$$name; \
		case $$years in *+*) continue;; esac; \
		$(LEARN) evaluate --data places:$$views@$$map --rerank 5; \
		for by in gradient sift; do $(LEARN) trial baseline $$views --map $$map --by $$by --every 4; done; done
	$(LEARN) trial table $(foreach shot,$(SEEN),$(GALLERY)/$(call part,1,$(shot))_over_$(call part,2,$(shot))_$(call part,3,$(shot)))

# ---- how fast, how large: FP32 beside INT8 in one run, over 25 km2 of drawn ground that is kept in runs/bench

BENCH := runs/bench

$(BENCH)/overhead.onnx: onboard/models/overhead.int8.onnx | $(TEST)/.installed
	$(LEARN) export dequantize $< --out $@

bench: $(TEST)/.installed $(BENCH)/overhead.onnx
	$(LEARN) bench --against $(BENCH)/overhead.onnx --out $(BENCH) $(ARGS)

# ---- the aircraft

jetson:
	$(if $(findstring --dry-run,$(ARGS)),,sudo )launch/jetson/setup.sh $(ARGS)

clean:
	rm -rf $(DEMO) $(TEST) runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
