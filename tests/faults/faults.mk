# Store faults: Redis does its worst; what is lost, what callers are told, what workers feel.
#
#   FAULT='WRONG*'      faults whose names match (make redis-faults FAULT='every byte': cuts alone)
#   FAULT_SECONDS=3     how long each lasts, and the calms before and after it
#   FAULT_ARGS=         other options; --help tells them
#   SESSTAB_SEED=       repeats what was chosen at random

FAULTS        := $(BUILD)/tests/faults/faults
FAULT         ?= *
FAULT_SECONDS ?= 3

# Some of them, shortly, are among what `make check` runs.
CHECKS += $(BUILD)/tests/faults/brief
tests: $(BUILD)/tests/faults/brief

$(FAULTS): $(call objects,tests/faults/*.c) $(TEST_OBJ) $(STATIC)
	$(call link,-lcmocka -lhiredis -levent_core)

$(BUILD)/tests/faults/brief: tests/faults/brief.sh $(FAULTS)
	@install -m 755 $< $@

redis-faults: $(FAULTS) $(TOOLS)  ## Redis does its worst: every fault, what is lost (0), what is told, how long
	@SESSTAB_BIN=$(BUILD) $(FAULTS) --fault='$(FAULT)' --seconds=$(FAULT_SECONDS) $(FAULT_ARGS)

.PHONY: redis-faults
