# What answers is not what was asked: the persister's own parts, in one process, without the harness.

REPLY_CHECK := $(BUILD)/tests/reply/reply_check
CHECKS += $(REPLY_CHECK)
tests: $(REPLY_CHECK)

$(REPLY_CHECK): $(BUILD)/tests/reply/reply_check.o $(TOOLS_INSIDE) $(STATIC)
	$(call link,$(TOOLS_INSIDE) $(STATIC) -lcmocka -lhiredis -lcjson -lmicrohttpd)
