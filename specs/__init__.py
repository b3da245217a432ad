"""The built-in networks: `.cnn` files that can be compiled by their name."""
