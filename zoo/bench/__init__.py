"""The cost of models, next to published figures, and their measured speed."""
