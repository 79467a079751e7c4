"""The command line: parses the words, calls the rest of `research`, and prints what comes of it."""
