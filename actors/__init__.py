"""What the tree is made of: resilience, workers, databases, HTTP and the integrations."""
