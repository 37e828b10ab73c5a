"""What `tasks.py` calls: each module parses, wires the flows, and prints."""
