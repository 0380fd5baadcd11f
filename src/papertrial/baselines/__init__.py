"""What papers are compared with, under the same contract as the shelf."""
