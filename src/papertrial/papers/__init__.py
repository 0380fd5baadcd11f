"""The shelf: one file per paper."""
