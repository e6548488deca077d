"""What ours is measured against: each contender trains in a process of its own (see `worker`), without importing prerank."""
