"""What `fleet.*` and `roll.*` call: fleets found, judged and rolled, by the world, the ledger and the durable engine.

`rollouts` decides and `fleet` acts on members; here the two meet, and what became of it is told.
"""
