"""Files of runs and studies: written whole or not at all, and read as untrusted input."""
