"""What `benchmarks/chaos.py` is made of: storages that fail, a cluster whose nodes are in trouble, and the faults."""
