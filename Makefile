# sesstab.  `make help` lists what there is to make.
#
#   SAN=address,undefined | thread    build everything with these sanitizers (into build/<san>)
#   CC=clang                          another compiler
#   WERROR=1                          warnings are errors

MAKEFLAGS += --no-print-directory
comma := ,

SAN    ?=
BUILD  := build$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))$(if $(filter-out cc gcc,$(notdir $(CC))),/$(notdir $(CC)))
PREFIX ?= /usr/local

CFLAGS   ?= -O2 -g
WARN     := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla $(if $(WERROR),-Werror)
override CPPFLAGS += -I. -D_GNU_SOURCE
override CFLAGS   += -std=gnu11 -pthread -fPIC -fvisibility=hidden $(WARN) \
                     $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all)
override LDFLAGS  += -pthread $(if $(SAN),-fsanitize=$(SAN))

# ---------------------------------------------------------------- what there is ------------

LIB_SRC   := $(wildcard shm/*.c) $(wildcard lib/*.c)
LIB_OBJ   := $(LIB_SRC:%.c=$(BUILD)/%.o)
STATIC    := $(BUILD)/libsesstab.a
SHARED    := $(BUILD)/libsesstab.so.0

PERSISTER := $(BUILD)/persister
SHMDUMP   := $(BUILD)/shmdump
MUSHD     := $(BUILD)/mushd

TEST_SRC  := $(wildcard tests/*_test.c)
TESTS     := $(TEST_SRC:tests/%.c=$(BUILD)/tests/%)
TEST_LIB  := $(patsubst %.c,$(BUILD)/%.o,$(filter-out $(TEST_SRC),$(wildcard tests/*.c)))
BENCH_SRC := $(wildcard bench/*_bench.c)
BENCHES   := $(BENCH_SRC:bench/%.c=$(BUILD)/bench/%)

all: $(STATIC) $(SHARED) $(PERSISTER) $(SHMDUMP) $(MUSHD)  ## library, persister, shmdump, mushd

# ---------------------------------------------------------------- rules ---------------------

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC    $<"
	@$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(STATIC): $(LIB_OBJ)
	@echo "  AR    $@"
	@rm -f $@ && $(AR) rcs $@ $^

$(SHARED): $(LIB_OBJ)
	@echo "  LD    $@"
	@$(CC) $(LDFLAGS) -shared -Wl,-soname,$(@F) -o $@ $^
	@ln -sf $(@F) $(BUILD)/libsesstab.so

define program  # name, objects, libraries
$(1): $(2) $(STATIC)
	@mkdir -p $$(@D)
	@echo "  LD    $$@"
	@$$(CC) $$(LDFLAGS) -o $$@ $(2) $(STATIC) $(3)
endef

$(eval $(call program,$(PERSISTER),$(patsubst %.c,$(BUILD)/%.o,$(wildcard tools/persister*.c) tools/log.c),-lhiredis))
$(eval $(call program,$(SHMDUMP),$(patsubst %.c,$(BUILD)/%.o,$(wildcard tools/shmdump*.c)),-lcjson))
$(eval $(call program,$(MUSHD),$(patsubst %.c,$(BUILD)/%.o,$(wildcard docs/examples/*.c)),-levent_core))

$(BUILD)/tests/%: $(BUILD)/tests/%.o $(TEST_LIB) $(STATIC)
	@echo "  LD    $@"
	@$(CC) $(LDFLAGS) -o $@ $< $(TEST_LIB) $(STATIC) -lcmocka -lhiredis

$(BUILD)/bench/%: $(BUILD)/bench/%.o $(STATIC)
	@echo "  LD    $@"
	@$(CC) $(LDFLAGS) -o $@ $< $(STATIC) -lhiredis -lurcu-memb -lurcu-cds

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

clean:  ## remove everything that was built
	rm -rf build

help:  ## this text
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 16

.PHONY: all clean help
.DELETE_ON_ERROR:
.SECONDARY:
