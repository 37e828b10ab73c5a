"""The network as reviewed content: who may talk to whom, rendered, compared with what is there, and moved."""
