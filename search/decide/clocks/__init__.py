"""Time and error apart: what of a trial is measured, what is known already, and what is measured again."""
