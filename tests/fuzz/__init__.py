"""Fuzzing of everything that is read: `python -m tests.fuzz`, and a short run of it as a test."""
