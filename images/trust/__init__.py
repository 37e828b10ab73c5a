"""What a release proves to strangers: evidence as standard predicates, and how it is signed, kept and verified."""
