"""Training: recipes, the objective, the training loop and its runs."""
