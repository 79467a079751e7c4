"""What finished runs have shown: a JSON line a run, and tables and a page made of the lines.

`python -m experiments.results.collect RUNS` writes the lines of finished runs into the files
`DATASET.jsonl` of this folder, and how the cells of a study compare into comparisons.json;
`make results` makes of them the tables of README.md and the site, a picture for each study on a
data set, and leaderboard.html, a page of all with filters.
"""
