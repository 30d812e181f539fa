"""What test_house.py computes with: the import graph, and the words that the field has better ones for."""
