"""From raw files to batches: readers, preparation, the corpus on disk, windows and loading."""
