"""Rollouts: what is planned, when it may act, what it costs, and how it is executed."""
