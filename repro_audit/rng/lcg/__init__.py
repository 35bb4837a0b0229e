"""Linear congruential generators: their sequences, periods, and how their outputs give them away."""
