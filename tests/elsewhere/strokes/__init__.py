"""A package that papertrial knows nothing of: a kind of data, a task and a network of its own, found by their entry points."""
