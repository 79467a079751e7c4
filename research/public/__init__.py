"""The interface for notebooks and programs, which `import sixfold as sf` offers."""
