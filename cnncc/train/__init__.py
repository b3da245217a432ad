"""Training: data sets, learning-rate schedules, logs, checkpoints, and the loop that uses them."""
