# Included by the Makefile: what stopped and dying processes cost.

STOPPED     := $(BUILD)/tests/stopped/stopped
DEATHS      := $(BUILD)/tests/stopped/deaths
STOPPED_OBJ := $(call objects,bench/bench.c bench/sandbox.c tests/places.c)

$(STOPPED) $(DEATHS): %: %.o $(STOPPED_OBJ) $(STATIC)
	$(call link,-lm)

stopped: $(STOPPED)  ## memory under 0, 1, 4 and 16 stopped readers, 10 million updates each
	@$(STOPPED) $(STOPPED_ARGS)

deaths: $(DEATHS) $(PERSISTER)  ## how long a killed worker keeps its lock and its slot (minutes)
	@SESSTAB_BIN=$(BUILD) $(DEATHS) $(DEATHS_ARGS)

.PHONY: stopped deaths
