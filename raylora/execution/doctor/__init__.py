"""What a machine or cluster can run, and what is wrong with it: `raylora doctor`."""
