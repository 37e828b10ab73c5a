"""What an attacker reaches from a member: facts become a graph, the graph a reach, and the reach cuts."""
