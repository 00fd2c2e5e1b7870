"""The trainer: one loop for `raylora train`, for trials on one device, and for trials on many."""
