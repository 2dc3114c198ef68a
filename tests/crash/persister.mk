# The microscope on the persister: the leader killed, or stopped, after every instruction between
# taking a change and having announced what became of it.
#
#   CRASH_OPERATION='bind*'   rows whose names match         CRASH_AT=1234   one instruction
#   CRASH_STRIDE=100          every 100th instruction        CRASH_JOBS=2    0: one per processor

PERSISTER_CRASH := $(BUILD)/tests/crash/persister_crash
TAKEOVER_OBJ    := $(addprefix $(BUILD)/tests/crash/,persister_leader.o persister_world.o)

$(PERSISTER_CRASH): $(BUILD)/tests/crash/persister_crash.o $(TAKEOVER_OBJ) $(TEST_OBJ) $(STATIC)
	$(call link,-lcmocka -lhiredis)

$(BUILD)/tests/persister_crash_test: $(TAKEOVER_OBJ)

tests: $(PERSISTER_CRASH)

crash-persister: $(PERSISTER_CRASH) $(PERSISTER) $(SHMDUMP)  ## kill the persister everywhere (hours; CRASH_STRIDE=100)
	@SESSTAB_BIN=$(BUILD) $(PERSISTER_CRASH) \
	    $(if $(CRASH_OPERATION),--operation='$(CRASH_OPERATION)') \
	    $(if $(CRASH_STRIDE),--stride=$(CRASH_STRIDE)) $(if $(CRASH_JOBS),--jobs=$(CRASH_JOBS)) \
	    $(if $(CRASH_AT),--at=$(CRASH_AT))

.PHONY: crash-persister
