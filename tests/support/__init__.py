"""What the tests that start real processes share."""
