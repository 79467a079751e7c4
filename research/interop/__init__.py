"""Weights and configs of other programs: their import, and the export of ours."""
