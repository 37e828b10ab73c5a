"""Managed node groups of EKS clusters: their instances are judged, and they are rolled by version updates."""
