"""How fast is the packed core, how much memory does it take, and how does it compare with peers?

Command: python -m experiments.benchmark [--work W1 W3 ...] [--peers rectools fast recbole]
             [--runs 3] [--steps N] [--peer-steps N] [--device cpu|cuda] [--out FOLDER]
         python -m experiments.benchmark --against CHECKOUT [--pairs 5] [--steps 300] [--work ...]
Corpora: Beauty and ml-1m-sas below --corpora (data/corpora), made as experiments/beauty.py and
         experiments/ml_1m.py say; a work whose corpus is absent says so and is left out.
Hardware: any; two threads unless --threads says otherwise. Results: experiments/LOG.md.

W1 SASRec, full softmax at every position, Beauty, length 50, 256 rows: one epoch of training.
W2 S3-Rec pretraining, AAP + MIP + MAP + SP, Beauty, every prefix, 100 rows: one epoch.
W3 BERT4Rec cloze, mask 0.2, Beauty, 256 rows: one epoch.
W4 SASRec, full softmax, ML-1M, length 200, 128 rows: one epoch.
W5 SASRec, BCE with one negative, Beauty: one epoch.
W6 Rank every user's test item among all items of Beauty.
W7 Peak resident memory of W1: the column "peak MB" of its rows.
W8 Full softmax over a catalogue of 1,000,000 items, 4,096 targets: one step, forward and backward.

Ours and the peers run a work in turn, --runs times, each in a process of its own. A peer is
installed from its pinned requirements into a virtual environment outside the project
(--peer-folder), once. Each side reports what it did (rows, targets, sizes, loss), as counted in its
own data and read off its own model; where a peer did something else than ours and
`experiments/benchmark/peers/known.py` does not say why, no ratio is given. `--out` writes the table
(table.md), the figure (figure.svg) and all measurements (results.json).

`--against` runs another checkout of the project and this one in turn, with one thread, and prints
the ratios of their CPU times (which other work on the machine disturbs least). Beside them it
prints the ratios of neighbouring runs of the other checkout: what chance alone does.
"""
