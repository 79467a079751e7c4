"""Ranking of held-out items; metrics, intervals and paired tests are computed from the ranks."""
