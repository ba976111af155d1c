"""Search spaces as TOML files, the schema they are checked against, and the knobs they may hold."""
