"""Studies: which runs (cells, seeds, corpora) a study needs, which are missing, and doing those."""
