"""From a folder of pictures to one that can be learned: cut, captioned, and on record."""
