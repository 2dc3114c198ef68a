# The crash microscope: every operation killed, or stopped, after every instruction.
#
#   CRASH_OPERATION='bind*'   rows whose names match         CRASH_HOW=stop    instead of kill
#   CRASH_STRIDE=100          every 100th instruction        CRASH_JOBS=2      0: one per processor
#   CRASH_AT=1234             one instruction                CRASH_INSPECT=1   shmdump at every Nth
#   CRASH_EARLY=1             recovery before any load

CRASH     := $(BUILD)/tests/crash/crash
CRASH_OBJ := $(addprefix $(BUILD)/tests/crash/,crash.o operations.o half_done.o world.o survivor.o \
               load.o stored.o account.o)

# Bound at the start: the dynamic linker's work is not the operation's.
$(CRASH): $(CRASH_OBJ) $(TEST_OBJ) $(STATIC)
	$(call link,-lcmocka -lhiredis -Wl$(comma)-z$(comma)now)

tests: $(CRASH)

crash: $(CRASH) $(SHMDUMP)  ## kill every operation at every instruction (a quarter of an hour, idle)
	@SESSTAB_BIN=$(BUILD) $(CRASH) $(if $(CRASH_OPERATION),--operation='$(CRASH_OPERATION)') \
	    $(if $(CRASH_HOW),--how=$(CRASH_HOW)) $(if $(CRASH_STRIDE),--stride=$(CRASH_STRIDE)) \
	    $(if $(CRASH_JOBS),--jobs=$(CRASH_JOBS)) $(if $(CRASH_AT),--at=$(CRASH_AT)) \
	    $(if $(CRASH_EARLY),--early) $(if $(CRASH_INSPECT),--inspect=$(CRASH_INSPECT))

.PHONY: crash
