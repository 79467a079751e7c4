"""What finished runs have shown: a JSON line a run, and the tables that are made of the lines.

`python -m experiments.results.collect RUNS` writes the lines of finished runs into the files
`DATASET.jsonl` of this folder; `make results` makes the tables of README.md and the site of them.
"""
