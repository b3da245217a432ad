"""The graph: tensors and operators in single assignment, between language and loop nests."""
