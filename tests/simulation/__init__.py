"""The whole rollout against a fleet that does not exist, under faults drawn from a seed, with its promises checked."""
