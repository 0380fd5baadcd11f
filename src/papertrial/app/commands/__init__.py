"""The commands, a file for each group of them. What is heavy is imported by the command that needs it."""
