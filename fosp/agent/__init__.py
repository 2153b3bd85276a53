"""What to do: critics, reachability, policy, constraint, expansion. Knows latents and batches, not environments or files."""
