"""What is remembered of a search: records of trials, MLflow runs, the model registry."""
