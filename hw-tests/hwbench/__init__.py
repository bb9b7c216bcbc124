"""The bench's own code: what the scenarios in `hw-tests/` stand on."""
