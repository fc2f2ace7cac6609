"""Model cards: the README.md of a model's folder, written from what was measured."""
