"""Durable execution behind a small port: flows that go on where a dead process left them."""
