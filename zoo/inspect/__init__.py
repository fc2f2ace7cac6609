"""Pictures and reports of forecasts."""
