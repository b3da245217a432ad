"""The graph: tensors and operators in single assignment, between the language and the loop nests."""
