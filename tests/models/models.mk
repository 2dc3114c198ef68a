# Models of the protocols, for spin.  tests/models/runs says what is run; docs/models.md explains.

model:  ## prove the models of the protocols, and see that every mutant is caught (minutes)
	@tests/models/run.sh full

model-smoke:  ## the same, small (a minute at most)
	@tests/models/run.sh smoke

.PHONY: model model-smoke
