"""From raw files to a corpus: download, readers, filters."""
