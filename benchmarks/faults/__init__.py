"""Is anything lost, doubled or trained twice while machines, servers and the driver die? See `__main__`."""
