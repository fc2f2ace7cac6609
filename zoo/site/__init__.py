"""A static web site: a catalog of models, and a page that runs them in the browser."""
