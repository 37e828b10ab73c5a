"""Fleets on a Docker Engine."""
