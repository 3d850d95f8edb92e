"""glamkit: the GLAM that anyone can run."""
