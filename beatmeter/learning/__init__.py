"""Features and a task become a run."""
