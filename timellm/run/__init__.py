"""One whole training run: prepared, trained, validated, tested."""
