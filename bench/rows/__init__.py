"""What is raced for each paper: one file per paper with `RACES`; a paper without one stands in `WITHOUT` of `bench/__main__.py`."""
