"""What is computed from the encoder's states, and the corruptions that it sees."""
