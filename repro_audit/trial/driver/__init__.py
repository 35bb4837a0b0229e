"""Training what the target's `build()` returned, a few steps long."""
