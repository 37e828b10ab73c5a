"""Trust: what a release says of itself, signed so that a stranger can check it, and whether what we meet holds."""
