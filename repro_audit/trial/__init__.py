"""One run of the target under one setting, in its own process."""
