"""How the scripted behaviours find and follow their way. ``fosp.envs.scripted`` is where they are made."""
