"""What must survive a power cut: synchronous SQLite."""
