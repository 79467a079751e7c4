"""The loop that trains any objectives: corrupt, encode once, divide once, step."""
