"""Baselines: each one file that replaces one or two functions of the agent."""
