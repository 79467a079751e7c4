"""From raw files to batches: preparation, the corpus on disk, splits, windows, the loader."""
