"""First waist: features of audio, how they are made, kept and served."""
