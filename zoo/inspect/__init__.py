"""Ways to look at what a model does."""
