"""Studies: cells, seeds and corpora of runs, what is missing of them, and doing it."""
