"""What to do: critics, reachability, policy, constraint, expansion. Knows latents, not environments or files."""
