"""What to do: critics, reachability, policy, constraint, expansion. Knows latents and batches; no environment, no file."""
