"""Folders of captioned pictures: reading, splitting, and the order in which they are learned."""
