"""The tests: slow twins, invariants and hand-computed numbers; no network, no GPU."""
