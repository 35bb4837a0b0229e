"""Two runs compared: whether and where they differ, and the first cause of that. Pure."""
