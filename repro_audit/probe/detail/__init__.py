"""What pinpointing observes besides: ops, lines, draws, files."""
