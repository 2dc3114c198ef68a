# Included by the Makefile: a whole system in one command.

demo:  ## install what is missing, build, and watch sesstab survive one crash after another
	@.ci/install demo
	@$(MAKE) -s all
	@bash docs/examples/demo/keeper.sh demo.sh $(BUILD)

run:  ## install what is missing, build, and run a server until Ctrl-C
	@.ci/install demo
	@$(MAKE) -s all
	@bash docs/examples/demo/keeper.sh run.sh $(BUILD)

.PHONY: demo run
