"""Full-length trainings of the demo, recorded once, so that searches can be compared without training."""
