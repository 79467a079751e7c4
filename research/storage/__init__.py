"""Files that outlast a process: written whole or not at all, and read with suspicion."""
