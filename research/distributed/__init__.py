"""Several processes as one job: Accelerate, collectives, signals, heartbeats and the watchdog."""
