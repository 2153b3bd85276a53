"""The command ``fosp`` with its verbs."""
