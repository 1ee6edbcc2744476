"""What is done for all again and again: snapshots, and what is left behind."""
