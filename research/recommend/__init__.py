"""From a finished run to lists of items for users, and to its embeddings and neighbours."""
