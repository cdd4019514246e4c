"""Rehearse: boot an upload here as its platform would, and say what was seen."""
