"""From raw files to a corpus: download, readers, filters, and `prepare`, which runs them."""
