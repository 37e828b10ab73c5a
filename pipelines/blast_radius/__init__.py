"""If this member is taken, what can be reached: facts become a graph, the graph a reach, and the reach cuts."""
