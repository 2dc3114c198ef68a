# Fuzzing with libFuzzer, by clang: each tests/fuzz/<target>_fuzz.c is a program, and tests/fuzz/run
# runs them two at a time and prints the table.
#
#   FUZZ_SECONDS=300   for each target
#   FUZZ_RUNS=         executions of each target; whichever comes first
#   FUZZ_TARGETS=      which of them; "read:600 write" gives one a time of its own
#   FUZZ_CORPUS=       a directory that keeps the inputs that lead somewhere new, for the next run

FUZZ_SRC     := $(wildcard tests/fuzz/*_fuzz.c)
FUZZERS      := $(FUZZ_SRC:%.c=$(BUILD)/%)
FUZZ_FLAGS   := -O2 -g -std=gnu11 -pthread -fsanitize=fuzzer-no-link,address,undefined \
                -fno-sanitize-coverage=trace-cmp -fno-sanitize-recover=all \
                -fno-omit-frame-pointer $(WARN) $(WARN_C)
FUZZ_SECONDS ?= 300
FUZZ_TARGETS ?= $(patsubst tests/fuzz/%_fuzz.c,%,$(FUZZ_SRC))

fuzz_objects = $(patsubst %.c,$(BUILD)/fuzz/%.o,$(wildcard $(1)))

$(BUILD)/fuzz/%.o: %.c
	@mkdir -p $(@D)
	@echo "  FUZZ  $<"
	@clang $(CPPFLAGS) $(FUZZ_FLAGS) -MMD -MP -c -o $@ $<

$(FUZZERS): $(BUILD)/%: $(BUILD)/fuzz/%.o $(call fuzz_objects,tests/fuzz/image.c shm/*.c lib/*.c)
	@mkdir -p $(@D)
	@echo "  LD    $@"
	@clang -pthread -fsanitize=fuzzer,address,undefined -o $@ $^ $(LINK_MORE)

$(BUILD)/tests/fuzz/attach_fuzz: LINK_MORE := -Wl,--wrap=mmap
$(BUILD)/tests/fuzz/shmdump_fuzz: LINK_MORE := -lhiredis -lcjson -lmicrohttpd
$(BUILD)/tests/fuzz/shmdump_fuzz: $(filter-out %/persister.o %/sesstabctl.o,$(call fuzz_objects,tools/*.c))
$(BUILD)/fuzz/tools/shmdump.o: FUZZ_FLAGS += -Dmain=shmdump_main -Wno-missing-prototypes
$(BUILD)/tests/fuzz/reply_fuzz: LINK_MORE := -lhiredis -lcjson -lmicrohttpd -lm -Wl,--wrap=getrandom \
                                             -Wl,--wrap=redisConnectUnixWithTimeout
$(BUILD)/tests/fuzz/reply_fuzz: $(filter-out %/persister.o %/sesstabctl.o %/shmdump.o,$(call fuzz_objects,tools/*.c))

fuzzers: $(FUZZERS)

fuzz: $(FUZZERS)  ## damaged segments, and replies that are none (FUZZ_SECONDS=, FUZZ_RUNS=, FUZZ_TARGETS=)
	@tests/fuzz/run $(BUILD)/tests/fuzz "$(FUZZ_SECONDS)" "$(FUZZ_RUNS)" "$(FUZZ_CORPUS)" $(FUZZ_TARGETS)

fuzz-smoke: $(FUZZERS)  ## the same, a few seconds each
	@tests/fuzz/run $(BUILD)/tests/fuzz 8 "" "" $(FUZZ_TARGETS)

.PHONY: fuzzers fuzz fuzz-smoke
