"""Hundreds of kinds of bad input, each given to the real command line: what it says, and what it costs."""
