"""raylora finds the right settings for training a LoRA on Stable Diffusion, and hands over the LoRA."""

__version__ = "0.1.0"
