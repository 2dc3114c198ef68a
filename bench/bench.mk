# Benchmarks.  bench/<name>_bench.c is a program; bench/<name>/ its parts; the rest is what they share.
#
#   BENCH_SIZES="1000 1000000"   sessions in the tables that are compared
#   BENCH_ROUNDS=9               rounds that a median is taken of
#
# Figures go to build/bench/figures as JSON, plots beside them.  Peers whose package is missing are
# left out, and a line says so; `.ci/install bench` installs them all.

BENCH_SIZES  ?= 1000 100000 1000000 10000000
BENCH_ROUNDS ?= 9

FIGURES   := $(BUILD)/bench/figures
DOCS      ?= docs
SHOWN     := everybody get-view get-dependent get-batch latency mix huge-pages growth # in performance.md
PLOTS     := $(BUILD)/bench/plots
REPORT    := $(BUILD)/bench/report/report
REPORT_OBJ := $(call objects,bench/report/*.c)
BENCH_OBJ := $(call objects,bench/*.c)
BENCH_OBJ := $(filter-out %_bench.o,$(BENCH_OBJ))
TABLE_OBJ := $(call objects,bench/table/*.c) $(BUILD)/bench/table/boost.o
FOLDERS    = shm lib tools docs/examples $(sort $(shell find tests bench -type d))

# -l<library>, if the header is there
library_of = $(shell printf '\#include <$(1)>' | $(CC) -E -x c - >/dev/null 2>&1 && echo $(2))

$(BUILD)/bench/table/%.o: bench/table/%.cc
	@mkdir -p $(@D)
	@echo "  C++   $<"
	@$(CXX) $(CPPFLAGS) -O2 -g $(CXXFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/bench/table_bench: $(BUILD)/bench/table_bench.o $(TABLE_OBJ) $(BENCH_OBJ) $(STATIC) | $(BUILD)/bench/apcu.php
	@mkdir -p $(@D)
	@echo "  LD    $@"
	@$(CXX) $(LDFLAGS) -o $@ $(filter %.o,$^) $(STATIC) -lurcu-memb -lurcu-qsbr -lurcu-cds -lck -lhiredis \
	    -lcjson -lm -lrt $(call library_of,lmdb.h,-llmdb) \
	    $(call library_of,libmemcached/memcached.h,-lmemcached)

$(BUILD)/bench/apcu.php: bench/table/apcu.php
	@mkdir -p $(@D)
	@cp $< $@

$(REPORT): $(REPORT_OBJ) $(BENCH_OBJ)
	$(call link,-lcjson -lm)

bench-table: $(BUILD)/bench/table_bench  ## operations on the table, beside 10 peers (minutes)
	@mkdir -p $(FIGURES)
	@$< $(addprefix --sessions=,$(BENCH_SIZES)) --rounds=$(BENCH_ROUNDS) --huge --json=$(FIGURES)/table.json

bench-table-smoke: $(BUILD)/bench/table_bench
	@$< --smoke --json=$(BUILD)/bench/smoke.json

bench-plots: $(FIGURES)/table.json $(REPORT)  ## draw the plots again from the last figures
	@bench/plot $(REPORT) $(FIGURES) $(PLOTS)

bench-report: bench  ## measure everything, and write docs/performance.md anew
	@$(MAKE) bench-write

bench-write: $(REPORT) bench-plots  ## write docs/performance.md from the last figures
	@mkdir -p $(DOCS)/plots
	@for plot in $(SHOWN); do cp $(PLOTS)/$$plot.svg $(DOCS)/plots/ || echo "$$plot: measure and draw it first"; done
	@$< bench/performance.md.in $(FIGURES)/*.json >$(DOCS)/performance.md

bench-instructions: $(BUILD)/bench/table_bench  ## instructions and cache lines per operation, counted by callgrind (minutes)
	@mkdir -p $(FIGURES)
	@bench/instructions $< $(FIGURES)/instructions.json

$(FIGURES)/table.json:
	@echo "there are no figures yet: make bench" >&2; exit 1

-include bench/idea.mk

bench:  ## measure everything: the table beside its peers, the idea, binds, growth (half an hour)
	@.ci/install bench
	@for part in table idea persister growth instructions plots; do \
	    echo "# bench-$$part, $$(date +%T)"; $(MAKE) bench-$$part || exit; done
	@$(MAKE) lines

bench-smoke:  ## see that the benchmarks run (seconds; judges no time)
	@$(MAKE) bench-table-smoke bench-idea-smoke bench-persister-smoke bench-growth-smoke

lines:  ## lines of code per folder, without blank lines and comments
	@echo "# lines of code, without blank lines and comments"
	@printf '%-18s %6s %6s\n' folder files lines
	@for folder in $(FOLDERS); do \
	    find $$folder -maxdepth 1 -name '*.[ch]' -o -maxdepth 1 -name '*.cc' | \
	        xargs -r awk -v folder=$$folder -f bench/lines.awk; \
	done

.PHONY: bench bench-table bench-table-smoke bench-instructions bench-plots bench-report bench-write bench-smoke lines
