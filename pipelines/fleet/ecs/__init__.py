"""ECS services: their tasks are judged like containers, and rolled by new revisions of their task definition."""
