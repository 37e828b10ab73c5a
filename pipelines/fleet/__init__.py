"""Fleets: their files, their members, and the engines that run them."""
