"""The command line: each task parses, wires, calls one flow and prints."""
