"""The night: one durable flow from newer packages and feeds to the fleets, the report and the messages."""
