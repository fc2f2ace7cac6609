"""The cost of models, next to published figures."""
