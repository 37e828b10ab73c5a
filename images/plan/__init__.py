"""What would be built and why: the graph, the inputs, the decision; pure except for `planner`, which gathers."""
