"""How fast and how good the training is, each a command that prints a table and rewrites its dated Markdown file.

They need neither Ray nor Optuna, so `timellm` alone can be measured on another machine. `README.md` lists them.
"""
