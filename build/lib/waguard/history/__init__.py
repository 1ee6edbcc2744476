"""What was: kept in SQLite, and what has been learned from it."""
