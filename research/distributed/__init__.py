"""Several processes: Accelerate, what they tell one another, signals, and the watch over them."""
