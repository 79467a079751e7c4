"""Ranks of held-out items, and everything computed from them."""
