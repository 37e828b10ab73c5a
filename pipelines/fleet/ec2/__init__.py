"""Fleets at EC2: standalone instances, replaced by new ones or in place, and Auto Scaling groups."""
