"""What an audit found: one saved model, and pure functions that render it, one file a format."""
