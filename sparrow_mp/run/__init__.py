"""Inside a run: the monitor, the context that an engine gets, the outbox."""
