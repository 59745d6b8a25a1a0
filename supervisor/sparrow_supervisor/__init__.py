"""The daemon: supervises runs, records what they say, and tells whoever listens."""
