# Benchmarks.  Each bench/<name>_bench.c is a program; the rest is what they share.

BENCH_SRC := $(wildcard bench/*_bench.c)
BENCHES   := $(BENCH_SRC:%.c=$(BUILD)/%)
BENCH_OBJ := $(filter-out $(BENCH_SRC:%.c=$(BUILD)/%.o),$(call objects,bench/*.c))
FOLDERS   := shm lib tools docs/examples tests bench

$(BENCHES): $(BUILD)/%: $(BUILD)/%.o $(BENCH_OBJ) $(STATIC)
	$(call link,-lhiredis -lurcu-memb -lurcu-cds)

bench: $(BENCHES) $(PERSISTER)  ## measure the table beside its peers, binds, sizes (2 minutes)
	@$(BUILD)/bench/table_bench
	@echo
	@$(BUILD)/bench/bind_bench
	@echo
	@$(MAKE) lines

bench-smoke: $(BENCHES) $(PERSISTER)  ## see that the benchmarks run (seconds; judges no time)
	@$(BUILD)/bench/table_bench --smoke
	@$(BUILD)/bench/bind_bench --smoke

lines:  ## lines of code per folder, without blank lines and comments
	@echo "# lines of C, without blank lines and comments"
	@printf '%-14s %6s %6s\n' folder files lines
	@for folder in $(FOLDERS); do \
	    find $$folder -maxdepth 1 -name '*.[ch]' | xargs awk -v folder=$$folder -f bench/lines.awk; \
	done

.PHONY: bench bench-smoke lines
