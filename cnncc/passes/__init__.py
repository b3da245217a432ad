"""Passes: functions from graph to graph, each with what it does, requires and ensures."""
