# The storm: random deaths of workers, persisters and Redis, and an oracle.
#
#   STORM_SECONDS=60   how long it blows, over all kinds of tables
#   STORM_KILLS=0      ends earlier when so many workers were killed
#   STORM_WORKERS=8    worker processes
#   STORM_RATE=300     workers killed per second
#   STORM_ARGS=        other options; the usual one is --judge-hangs
#   SESSTAB_SEED=      repeats what was chosen at random

STORM         := $(BUILD)/tests/storm/storm
STORM_SECONDS ?= 60
STORM_KILLS   ?= 0
STORM_WORKERS ?= 8
STORM_RATE    ?= 300
STORM_ARGS    ?= --judge-hangs

# A short one, which judges no time, is one of the programs that `make check` runs.
CHECKS += $(STORM)
tests: $(STORM)

$(STORM): $(call objects,tests/storm/*.c) $(TEST_OBJ) $(STATIC)
	$(call link,-lcmocka -lhiredis)

storm: $(STORM) $(TOOLS)  ## kill workers, persisters and Redis at random; look for what is lost
	@SESSTAB_BIN=$(BUILD) $(STORM) $(STORM_ARGS) --seconds=$(STORM_SECONDS) --kills=$(STORM_KILLS) \
	    --workers=$(STORM_WORKERS) --rate=$(STORM_RATE)

.PHONY: storm
