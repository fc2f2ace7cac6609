"""Models as files that other runtimes execute, and forecasts from such files."""
