"""What is searched, what is tried next, and when a trial has seen enough."""
