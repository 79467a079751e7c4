"""A study's report: one model, read from run folders, and what is written from it."""
