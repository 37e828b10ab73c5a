"""Durable execution behind a small port: flows that continue where a dead process left them."""
