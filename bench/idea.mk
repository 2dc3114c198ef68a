# The benchmarks with Redis behind them, and growth; included by bench.mk, which says what is shared.

PERSIST_OBJ := $(call objects,bench/persist/*.c) $(BENCH_OBJ)
WITH_REDIS  := $(addprefix $(BUILD)/bench/,persist_bench idea_bench growth_bench)

$(BUILD)/bench/idea_bench: $(call objects,bench/idea/*.c)
$(WITH_REDIS): $(BUILD)/bench/%: $(BUILD)/bench/%.o $(PERSIST_OBJ) $(STATIC)
	$(call link,-lhiredis -lcjson -lm)

bench-idea: $(BUILD)/bench/idea_bench $(PERSISTER)  ## the idea's own table: us, and Redis asked in five ways (minutes)
	@mkdir -p $(FIGURES)
	@$< --json $(FIGURES)/idea.json

bench-persister: $(BUILD)/bench/persist_bench $(PERSISTER)  ## binds, backlogs, loading, what the persister uses (minutes)
	@mkdir -p $(FIGURES)
	@$< --json $(FIGURES)/persister.json

bench-growth: $(BUILD)/bench/growth_bench $(REPORT)  ## from 0 to 10 million sessions: pauses, bytes a session (minutes)
	@mkdir -p $(FIGURES) $(PLOTS)
	@$< --json $(FIGURES)/growth.json --curve $(FIGURES)/growth-curve.json
	@$(REPORT) --tsv $(FIGURES)/growth-curve.json >$(PLOTS)/growth.tsv
	@if command -v gnuplot >/dev/null; then gnuplot -c bench/growth.gp $(PLOTS)/growth.tsv $(PLOTS); \
	    else echo "no plot: there is no gnuplot (package gnuplot-nox)"; fi

bench-idea-smoke: $(BUILD)/bench/idea_bench $(PERSISTER)
	@$< --smoke

bench-persister-smoke: $(BUILD)/bench/persist_bench $(PERSISTER)
	@$< --smoke

bench-growth-smoke: $(BUILD)/bench/growth_bench
	@$< --smoke

.PHONY: bench-idea bench-persister bench-growth bench-idea-smoke bench-persister-smoke bench-growth-smoke
