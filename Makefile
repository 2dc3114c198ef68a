# sesstab.  `make help` lists what there is to make.
#
#   SAN=address,undefined | thread    build everything with these sanitizers (into build/san-...)
#   CC=clang                          another compiler (into build/clang)
#   WERROR=1                          warnings are errors
#   CHECK_JOBS=2                      how many test programs `make check` runs at a time
#   PREFIX=/usr/local DESTDIR=        where `make install` puts things

MAKEFLAGS += --no-print-directory
comma := ,

SAN    ?=
BUILD  := build$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))$(if $(filter-out cc gcc,$(notdir $(CC))),/$(notdir $(CC)))
PREFIX ?= /usr/local
CHECK_JOBS ?= 2

CFLAGS   ?= -O2 -g
WARN     := -Wall -Wextra -Wshadow -Wvla $(if $(WERROR),-Werror)
WARN_C   := -Wstrict-prototypes -Wmissing-prototypes
SANFLAGS := $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all)
override CPPFLAGS += -I. -D_GNU_SOURCE
override CFLAGS   += -std=gnu11 -pthread -fPIC -fvisibility=hidden $(WARN) $(WARN_C) $(SANFLAGS)
override CXXFLAGS += -std=c++17 -pthread $(WARN) $(SANFLAGS)
override LDFLAGS  += -pthread $(if $(SAN),-fsanitize=$(SAN))

# ---------------------------------------------------------------- what there is ------------

objects = $(patsubst %.c,$(BUILD)/%.o,$(wildcard $(1)))

LIB_OBJ   := $(call objects,shm/*.c lib/*.c)
STATIC    := $(BUILD)/libsesstab-inside.a
ARCHIVE   := $(BUILD)/libsesstab.a
TOOLS_INSIDE := $(BUILD)/tools-inside.a
SHARED    := $(BUILD)/libsesstab.so.0
PERSISTER := $(BUILD)/persister
SHMDUMP   := $(BUILD)/shmdump
CTL       := $(BUILD)/sesstabctl
MUSHD     := $(BUILD)/mushd
TOOLS     := $(PERSISTER) $(SHMDUMP) $(CTL) $(MUSHD)

TEST_SRC  := $(wildcard tests/*_test.c)
TESTS     := $(TEST_SRC:%.c=$(BUILD)/%)
TEST_OBJ  := $(filter-out $(TEST_SRC:%.c=$(BUILD)/%.o),$(call objects,tests/*.c))
CPLUSPLUS := $(BUILD)/tests/cplusplus_check
CHECKS    := tests/docs_check.sh

all: $(ARCHIVE) $(SHARED) $(TOOLS)  ## library, persister, shmdump, sesstabctl, mushd

tests: $(TESTS) $(CPLUSPLUS)

# ---------------------------------------------------------------- building -----------------

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC    $<"
	@$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(STATIC): $(LIB_OBJ)
	@echo "  AR    $@"
	@rm -f $@ && $(AR) rcs $@ $^

# What users link: one object in which only sesstab_* is left to be seen.  (Our own tools and tests
# look inside, and link the other archive.)
$(ARCHIVE): $(LIB_OBJ)
	@echo "  AR    $@"
	@$(LD) -r -o $(BUILD)/libsesstab.o $^
	@objcopy --localize-hidden $(BUILD)/libsesstab.o
	@rm -f $@ && $(AR) rcs $@ $(BUILD)/libsesstab.o

$(SHARED): $(LIB_OBJ)
	@echo "  LD    $@"
	@$(CC) $(LDFLAGS) -shared -Wl,-soname,$(@F) -o $@ $^
	@ln -sf $(@F) $(BUILD)/libsesstab.so

link = @mkdir -p $(@D); echo "  LD    $@"; $(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(STATIC) $(1)

# Each of the two takes from the other's parts what it needs: the connection, a look from outside.
$(TOOLS_INSIDE): $(filter-out $(TOOLS:$(BUILD)/%=$(BUILD)/tools/%.o),$(call objects,tools/*.c))
	@echo "  AR    $@"
	@rm -f $@ && $(AR) rcs $@ $^

$(PERSISTER) $(SHMDUMP): $(BUILD)/%: $(BUILD)/tools/%.o $(TOOLS_INSIDE) $(STATIC)
	$(call link,$(TOOLS_INSIDE) $(STATIC) -Wl$(comma)--as-needed -lhiredis -lcjson -lmicrohttpd)
$(CTL): $(call objects,tools/sesstabctl.c) $(STATIC)
	$(call link)
$(MUSHD): $(call objects,docs/examples/*.c) $(STATIC)
	$(call link,-levent_core)
$(TESTS): $(BUILD)/%: $(BUILD)/%.o $(TEST_OBJ) $(STATIC)
	$(call link,-lcmocka -lhiredis -lcjson)

# What it parses is tested in the test's own process, too.
$(BUILD)/tests/import_test: $(BUILD)/tools/persister_older.o

$(CPLUSPLUS): tests/cplusplus_check.cc lib/sesstab.h $(SHARED)
	@mkdir -p $(@D)
	@echo "  C++   $<"
	@$(CXX) $(CPPFLAGS) $(CXXFLAGS) -o $@ $< $(LDFLAGS) -L$(BUILD) -lsesstab -Wl,-rpath,$(abspath $(BUILD))

# ---------------------------------------------------------------- using --------------------

check:  ## install what is missing, build, and run every test, with real processes and a real Redis
	@.ci/install test
	@$(MAKE) -s all tests
	@SESSTAB_BIN=$(BUILD) CHECK_JOBS=$(CHECK_JOBS) tests/run.sh $(TESTS) $(CHECKS) $(CPLUSPLUS)

install: all  ## (as root) library, header, programs, man pages, systemd units
	install -d $(DESTDIR)$(PREFIX)/lib $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/bin \
	           $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 $(ARCHIVE) $(DESTDIR)$(PREFIX)/lib/
	install -m 755 $(SHARED) $(DESTDIR)$(PREFIX)/lib/
	ln -sf $(notdir $(SHARED)) $(DESTDIR)$(PREFIX)/lib/libsesstab.so
	install -m 644 lib/sesstab.h $(DESTDIR)$(PREFIX)/include/
	install -m 755 $(PERSISTER) $(SHMDUMP) $(CTL) $(DESTDIR)$(PREFIX)/bin/
	install -m 644 docs/*.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/lib/sysusers.d
	for unit in persister standby; do \
	    sed 's|^ExecStart=persister|ExecStart=$(PREFIX)/bin/persister|' docs/systemd/sesstab-$$unit@.service \
	        >$(DESTDIR)$(PREFIX)/lib/systemd/system/sesstab-$$unit@.service || exit 1; \
	done
	install -m 644 docs/systemd/sesstab.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/sesstab.conf
	@[ -n "$(DESTDIR)" ] || ldconfig 2>/dev/null || true

clean:  ## remove everything that was built
	rm -rf build

help:  ## this text
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 20

include docs/examples/demo/demo.mk
include bench/bench.mk $(sort $(wildcard tests/*/*.mk))
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

.PHONY: all tests check install clean help
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:
