"""What would be built and why: the graph, the inputs, the decision; pure but for the gathering in `planner`."""
