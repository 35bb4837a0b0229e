"""Put first on the path of each Python below `repro-audit exec`, for the module in it that Python looks for."""
