"""Trials on the nodes of a Ray cluster: `runner` hands them out, `lane` runs them there, `connection` speaks to Ray."""
