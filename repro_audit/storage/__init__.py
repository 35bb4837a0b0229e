"""What trials leave on disk, and the plain data that crosses the process border."""
