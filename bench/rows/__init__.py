"""What is raced for each paper: one file per paper with `RACES`, or with `NO_PEER`, the reason why there is nothing to race."""
