"""The adapters: a process of its own that serves the events as NDJSON, on a Unix socket and on TCP."""
