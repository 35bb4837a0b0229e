"""What levels put in place of the machine, the clock, the heap, and of threads' and processes' order."""
