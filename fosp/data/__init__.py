"""What was experienced: episodes, the store that keeps them, the sampler that learning reads."""
