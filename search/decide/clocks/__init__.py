"""Time and error apart: what is measured of a trial, what is known already, and what is measured again."""
