"""A static web site: a catalogue of models, and a page that runs them in the browser."""
