"""What papers claim, as functions that can be run: one file per paper, named like it."""
