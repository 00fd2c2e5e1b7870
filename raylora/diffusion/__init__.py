"""Stable Diffusion: base models, LoRA adapters, the training objective, generation, LoRA files."""
