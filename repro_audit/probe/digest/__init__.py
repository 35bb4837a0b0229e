"""Values and generators in 128 bits."""
