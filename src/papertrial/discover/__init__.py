"""From reading to running: an index over documents, and search in it."""
