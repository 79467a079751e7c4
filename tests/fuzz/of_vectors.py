"""Targets: files of item vectors."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from research.data.preparation.vector_files import read_vectors
from tests.fuzz.targets import Case, Target, altering

IDS = [f"item {number}" for number in range(6)]
VECTORS = np.arange(18, dtype=np.float32).reshape(6, 3) / 7
FILES = ("vectors.npy", "vectors.npz", "vectors.parquet")


def vectors(folder: Path) -> Case:
    """The same vectors in each form that can be read."""
    np.save(folder / "vectors.npy", VECTORS)
    (folder / "vectors.ids.txt").write_text("\n".join(IDS) + "\n", encoding="utf-8")
    np.savez(folder / "vectors.npz", ids=np.array(IDS), vectors=VECTORS)
    table = pa.table({"item": IDS, "embedding": VECTORS.tolist()})
    pq.write_table(table, folder / "vectors.parquet")

    def read(random: Random) -> object:
        found = read_vectors(folder / random.choice(FILES))
        return found.ids, np.asarray(found.vectors_NE).sum()

    return altering(folder, read)


TARGETS = (Target(name="item-vectors", milliseconds=3.0, begin=vectors),)
