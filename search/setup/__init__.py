"""All that is settled before a search starts: flags, machine, resources, manifest, resumption."""
