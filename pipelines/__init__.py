"""WHEN and WHERE it happens: nightly runs, fleets, rollouts, reports, and the host that all of it runs on."""
