"""Fleets: what people write about them, what runs in them, and the engines that hold them."""
