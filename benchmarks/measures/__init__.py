"""Do the measures tell good LoRAs from bad ones? Trainings of known quality, recorded and looked at."""
