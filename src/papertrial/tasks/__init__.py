"""The contract between data and method, one file per task; each offers `TASK`."""
