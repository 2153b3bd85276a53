"""One HTML page from finished runs. Reads files and nothing else: no model, no environment, no own statistics."""
