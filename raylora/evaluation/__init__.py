"""What a LoRA is worth: measures, one score of them, and a verdict."""
