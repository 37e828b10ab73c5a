"""Trust: signs what a release says of itself so that anybody can verify it, and verifies what we meet."""
