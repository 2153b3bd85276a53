"""When: loops, clocks, checkpoints, logs. Which agent and which environment are arguments."""
