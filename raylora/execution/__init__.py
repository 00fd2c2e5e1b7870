"""Running things: the search on Ray, a run alone, and what they leave in the output folder."""
