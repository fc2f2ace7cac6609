"""Training: recipes, the training objective, the loop that carries it out."""
